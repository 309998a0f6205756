//! Threads that connect as processes do, over the loopback interface.

use super::super::work::Work;
use super::*;
use tch::Kind;

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn join(rank: usize, world_size: usize, port: u16, facts: &[Fact]) -> Join {
    let endpoint = Endpoint { host: "127.0.0.1".into(), port, holder: Holder::Rank0 };
    Join { rank, world_size, endpoint, facts: facts.to_vec(), timeout: Duration::from_secs(120) }
}

/// What `work` gives in each of `world_size` threads.
fn run<T: Send>(world_size: usize, work: impl Fn(GlooProcessGroup) -> T + Sync) -> Vec<T> {
    let port = free_port();
    std::thread::scope(|scope| {
        let start = |rank| {
            let (work, join) = (&work, join(rank, world_size, port, &[]));
            scope.spawn(move || work(GlooProcessGroup::join(&join).unwrap()))
        };
        let threads: Vec<_> = (0..world_size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn sums_gathers_and_broadcasts() {
    let results = run(3, |processes| {
        let rank = processes.rank() as f32;
        let first = Tensor::from_slice(&[rank, 10.0 * rank, 1.0]);
        let second = Tensor::from_slice(&[0.5f32; 1000]).to_kind(Kind::BFloat16);
        // Both are pending at the same time.
        let pending = [processes.start_sum(&first).unwrap(), processes.start_sum(&second).unwrap()];
        pending.into_iter().for_each(|pending| pending.wait().unwrap());
        let gathered = processes.all_gather(&Tensor::from_slice(&[rank, -rank])).unwrap();
        let root = Tensor::from_slice(&[7 - processes.rank() as i64]);
        processes.broadcast(&root).unwrap();
        let bytes = processes.broadcast_bytes(if rank == 0.0 { b"of rank 0" } else { b"" }).unwrap();
        let any = [processes.any(rank == 1.0).unwrap(), processes.any(false).unwrap()];
        processes.finish().unwrap();
        let floats = |tensor: &Tensor| Vec::<f32>::try_from(&tensor.to_kind(Kind::Float).view([-1])).unwrap();
        assert_eq!(floats(&second), [1.5; 1000]);
        assert_eq!(bytes, b"of rank 0");
        (floats(&first), floats(&gathered), root.int64_value(&[0]), any)
    });
    let wanted = (vec![3.0, 30.0, 3.0], vec![0.0, 0.0, 1.0, -1.0, 2.0, -2.0], 7, [true, false]);
    assert!(results.iter().all(|result| *result == wanted), "{results:?}");
}

#[test]
fn a_process_that_is_alive_and_does_not_come_is_named_as_behind() {
    let port = free_port();
    let (failed, has_failed) = std::sync::mpsc::channel();
    let join = |rank| Join { timeout: Duration::from_secs(10), ..join(rank, 2, port, &[]) };
    let [waits, hangs] = [0, 1].map(join);
    let hanging = std::thread::spawn(move || {
        let processes = GlooProcessGroup::join(&hangs).unwrap();
        // Busy with something else until the other has given up.
        has_failed.recv().unwrap();
        // Data that the other has sent for the abandoned exchange are still there.
        let fails = || processes.barrier().err();
        std::iter::repeat_with(fails).take(3).flatten().next().unwrap().to_string()
    });
    let processes = GlooProcessGroup::join(&waits).unwrap();
    processes.note_steps(4);
    let message = processes.barrier().unwrap_err().to_string();
    failed.send(()).unwrap();
    // The first exchange was to connect.
    let wanted = "alive but behind after 10 s in step 5: rank 1 (exchange 1 of 2)";
    assert!(message.starts_with(wanted), "{message}");
    let message = hanging.join().unwrap();
    assert!(message.starts_with(wanted), "{message}");
}

#[test]
fn a_process_that_ends_without_finish_is_named() {
    let results = run(2, |processes| {
        processes.barrier().unwrap();
        processes.note_steps(5);
        match processes.rank() {
            1 => None,
            _ => Some(processes.barrier().unwrap_err().to_string()),
        }
    });
    let message = results[0].as_ref().unwrap();
    assert!(message.starts_with("rank 1 is gone (after step 5)"), "{message}");
}

#[test]
fn processes_that_were_started_differently_are_refused_by_name() {
    let port = free_port();
    let configurations = ["[train]\nlr = 1.0\n", "[train]\nlr = 1.0\n", "[train]\nlr = 2.0\n"];
    let messages: Vec<String> = std::thread::scope(|scope| {
        let start = |rank: usize| {
            let facts = [Fact::new("the cache", "abc"), Fact::toml("the configuration", configurations[rank])];
            let join = join(rank, 3, port, &facts);
            scope.spawn(move || GlooProcessGroup::join(&join).unwrap_err().to_string())
        };
        let threads: Vec<_> = (0..3).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let wanted = "rank 2 was started differently: train.lr is 2.0 there and 1.0 on rank 0";
    assert_eq!(messages, [wanted; 3]);
}

const OTHER_SIZE: &str = "rank 3 was started differently: the world size is 4 there and 2 on rank 0";

#[test]
fn a_rank_beyond_the_world_size_of_rank_0_is_refused_on_both_sides() {
    let port = free_port();
    let messages = [(0, 2), (3, 4)].map(|(rank, world_size)| {
        let join = join(rank, world_size, port, &[]);
        std::thread::spawn(move || GlooProcessGroup::join(&join).unwrap_err().to_string())
    });
    assert_eq!(messages.map(|thread| thread.join().unwrap()), [OTHER_SIZE; 2]);
}

#[test]
fn who_comes_when_a_run_has_begun_is_told_why_it_cannot_take_part() {
    let port = free_port();
    let refused = |rank: usize, world_size: usize| {
        GlooProcessGroup::join(&join(rank, world_size, port, &[])).unwrap_err().to_string()
    };
    let members = [0, 1].map(|rank| {
        let join = join(rank, 2, port, &[]);
        std::thread::spawn(move || GlooProcessGroup::join(&join).unwrap())
    });
    let members = members.map(|thread| thread.join().unwrap());
    assert_eq!(refused(3, 4), OTHER_SIZE);
    assert_eq!(refused(1, 2), "this run has begun, and has a rank 1 already");
    let ends = members.map(|member| std::thread::spawn(move || member.finish().unwrap()));
    ends.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_sum_for_one_process_is_there_whole() {
    let results = run(3, |processes| {
        let own = Tensor::from_slice(&[1.0 + processes.rank() as f32, 10.0]);
        processes.start_sum_for(&own, 1).unwrap().wait().unwrap();
        processes.finish().unwrap();
        Vec::<f32>::try_from(&own).unwrap()
    });
    assert_eq!(results[1], [6.0, 30.0]);
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    let port = free_port();
    let messages: Vec<String> = std::thread::scope(|scope| {
        let start = |rank: usize| {
            let join = Join { timeout: Duration::from_secs(3), ..join(rank, 4, port, &[]) };
            scope.spawn(move || GlooProcessGroup::join(&join).unwrap_err().to_string())
        };
        let threads: Vec<_> = [0, 1, 3].into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(messages, ["ranks [2] of 4 did not arrive within 3 s"; 3]);
}

#[test]
fn a_store_that_outlives_a_start_does_not_confuse_the_next() {
    let port = free_port();
    let agent = Endpoint { host: "127.0.0.1".into(), port, holder: Holder::Agent };
    let _store = Store::connect(&agent, true, Duration::from_secs(60)).unwrap();
    // The threads of the first start stay as if they hung. They must not outlive the test: the process's end would destroy
    // libtorch's static objects while they use them.
    let mut hanging = vec![];
    for start in 0..3 {
        let joined: Vec<(f64, GlooProcessGroup)> = std::thread::scope(|scope| {
            let begin = |rank: usize| {
                let join = Join { endpoint: agent.clone(), ..join(rank, 2, port, &[]) };
                scope.spawn(move || {
                    let processes = GlooProcessGroup::join(&join).unwrap();
                    let value = Tensor::from_slice(&[start as f32 + rank as f32]);
                    processes.sum(&value).unwrap();
                    if start > 0 {
                        processes.finish().unwrap();
                    }
                    (value.double_value(&[0]), processes)
                })
            };
            let threads: Vec<_> = [0, 1].map(begin).into_iter().collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(joined.iter().all(|(sum, _)| *sum == 2.0 * f64::from(start) + 1.0), "start {start}");
        hanging.extend(joined.into_iter().map(|(_, processes)| processes).filter(|_| start == 0));
    }
    let ends = hanging.into_iter().map(|processes| std::thread::spawn(move || processes.finish().unwrap()));
    ends.collect::<Vec<_>>().into_iter().for_each(|end| end.join().unwrap());
}

#[test]
fn an_exchange_that_ends_as_a_wait_for_it_does_has_not_failed() {
    run(2, |processes| {
        let value = Tensor::from_slice(&[1.0f32]);
        for round in 0..400u64 {
            // One is late by about a wait of the other.
            if processes.rank() == 1 {
                std::thread::sleep(Duration::from_micros(900 + round % 20 * 10));
            }
            let work = processes.group().sum(&value).unwrap();
            while !work.wait(Duration::from_millis(1)).unwrap_or_else(|failure| panic!("round {round}: {}", failure.0))
            {
            }
        }
        processes.finish().unwrap();
    });
}
