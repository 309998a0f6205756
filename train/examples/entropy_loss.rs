//! Time and memory of the entropy loss, forward and backward, at 18 bits and 2,048 positions (8 images of 256 pixels).
//!
//! ```sh
//! cargo run --release -p tokengrid-train --example entropy_loss              # three rounds of each form
//! cargo run --release -p tokengrid-train --example entropy_loss -- literal   # one form; this one takes 10 GiB
//! ```
//!
//! | form | what it is |
//! |---|---|
//! | `ours` | `entropy_loss`: factorised, gradient by hand |
//! | `autograd` | factorised, gradient by autograd |
//! | `literal` | the softmax over all 2^18 corners, as the formula is written; only when asked for |
//!
//! Each measurement runs in a separate process: peak memory is per process.

use std::process::Command;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use tokengrid_model::lfq;
use tokengrid_train::tokenizer::entropy_loss;

const ROUNDS: usize = 3;
const LOG_EPS: f64 = 1e-5;

fn main() {
    match std::env::args().nth(1) {
        Some(form) => measure(&form),
        None => {
            let program = std::env::current_exe().expect("the path of this program");
            for form in ["ours", "autograd"].into_iter().cycle().take(2 * ROUNDS) {
                let status = Command::new(&program).arg(form).status().expect("this program starts");
                assert!(status.success(), "{form} failed");
            }
        }
    }
}

fn measure(form: &str) {
    let (loss, calls): (fn(&Tensor) -> Tensor, usize) = match form {
        "ours" => (|h| entropy_loss(h).total, 20),
        "autograd" => (autograd, 20),
        "literal" => (literal, 2),
        _ => panic!("expected `ours`, `autograd` or `literal`, not `{form}`"),
    };
    tch::manual_seed(0);
    let h_bzhw = Tensor::randn([8, 18, 16, 16], (Kind::Float, Device::Cpu)) * 0.03;
    let before = peak_mebibytes();
    let mut seconds = vec![];
    let mut result = (0.0, 0.0);
    for _ in 0..=calls {
        let h = h_bzhw.copy().set_requires_grad(true);
        let started = Instant::now();
        let total = loss(&h);
        total.backward();
        seconds.push(started.elapsed().as_secs_f64());
        result = (total.double_value(&[]), h.grad().norm().double_value(&[]));
    }
    // The first call allocates.
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    let (median, least) = (seconds[seconds.len() / 2], seconds[0]);
    let memory = peak_mebibytes() - before;
    let (total, gradient) = result;
    println!(
        "{form:<9} median {median:.4} s, minimum {least:.4} s, {memory:.0} MiB; loss {total:.6}, |gradient| {gradient:.6}"
    );
}

/// The factorised form, differentiated by the library.
fn autograd(h_bzhw: &Tensor) -> Tensor {
    let logit_pz = h_bzhw.permute([0, 2, 3, 1]).reshape([-1, 18]) * 400.0;
    let size_pz = logit_pz.abs();
    let negative_pz = -&size_pz;
    let sample = (negative_pz.softplus() + &size_pz * negative_pz.sigmoid()).sum(Kind::Float) / logit_pz.size()[0];
    let (one_pz, zero_pz) = (logit_pz.sigmoid(), (-&logit_pz).sigmoid());
    let corners = |from: i64| {
        let start = Tensor::ones([logit_pz.size()[0], 1], (Kind::Float, Device::Cpu));
        let double = |p: Tensor, k: i64| Tensor::cat(&[&p * zero_pz.narrow(1, k, 1), &p * one_pz.narrow(1, k, 1)], 1);
        (from..from + 9).fold(start, double)
    };
    let mean = corners(9).transpose(0, 1).matmul(&corners(0)) / logit_pz.size()[0];
    sample + (&mean * (&mean + LOG_EPS).log()).sum(Kind::Float)
}

/// The formula over all corners.
fn literal(h_bzhw: &Tensor) -> Tensor {
    let h_pz = h_bzhw.permute([0, 2, 3, 1]).reshape([-1, 18]);
    let every_token = Tensor::arange(1 << 18, (Kind::Int64, Device::Cpu)).view([-1, 1, 1]);
    let corners_cz = lfq::codes_of(&every_token, 18).view([-1, 18]);
    let logit_pc = h_pz.matmul(&corners_cz.transpose(0, 1)) * (2.0 / 0.01);
    let probability_pc = logit_pc.softmax(-1, Kind::Float);
    let log_pc = (logit_pc + LOG_EPS).log_softmax(-1, Kind::Float);
    let sample = -(&probability_pc * log_pc).sum(Kind::Float) / h_pz.size()[0];
    let mean_c = probability_pc.mean_dim([0i64].as_slice(), false, Kind::Float);
    sample + (&mean_c * (&mean_c + LOG_EPS).log()).sum(Kind::Float)
}

/// Largest resident size of this process so far, in MiB; 0 where the system does not report it.
fn peak_mebibytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kibibytes.unwrap_or_default() / 1024.0
}
