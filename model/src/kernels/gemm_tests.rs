use super::*;
use crate::rng::CounterRng;

fn values(name: u64, count: usize) -> Vec<f32> {
    let mut rng = CounterRng::new(&[name]);
    (0..count).map(|_| rng.uniform() as f32 - 0.5).collect()
}

fn element(values: &[f32], columns: usize, transposed: bool, row: usize, column: usize) -> f64 {
    f64::from(if transposed { values[column * columns + row] } else { values[row * columns + column] })
}

/// Sums in f64.
fn reference(a: &Factor, b: &Factor, base: &[f32]) -> Vec<f64> {
    let ((m, k), n) = (a.shape(), b.shape().1);
    let sum = |i: usize, j: usize| -> f64 {
        let of = |f: &Factor, i, j| element(f.values, f.columns, f.transposed, i, j);
        (0..k).map(|k| of(a, i, k) * of(b, k, j)).sum()
    };
    (0..m * n).map(|at| f64::from(base[at]) + sum(at / n, at % n)).collect()
}

#[test]
fn products_of_all_shapes_and_layouts_are_near_sums_in_f64_and_the_same_bits_everywhere() {
    let shapes = [[1, 1, 1], [14, 32, 16], [15, 31, 33], [3, 600, 70], [200, 40, 64], [61, 1100, 5]];
    for [m, k, n] in shapes {
        let (a, b, base) = (values(1, m * k), values(2, k * n), values(3, m * n));
        for (a, b) in [
            (Factor::new(&a, m, k), Factor::new(&b, k, n)),
            (Factor::new(&a, m, k), Factor::new(&b, n, k).transposed()),
            (Factor::new(&a, k, m).transposed(), Factor::new(&b, k, n)),
        ] {
            let zeros = vec![0.0; m * n];
            let run = |level, output| {
                let mut c = base.clone();
                multiply_at(level, a, b, &mut c, output);
                c
            };
            for (output, added) in [(Output::Set, &zeros), (Output::Add, &base), (Output::AddResidual(&base), &base)] {
                let want = reference(&a, &b, added);
                let all: Vec<Vec<f32>> = Level::all().into_iter().map(|level| run(level, output)).collect();
                for (got, want) in all[0].iter().zip(want) {
                    let bound = 1e-6 * (k as f64).sqrt().max(4.0);
                    assert!((f64::from(*got) - want).abs() < bound, "{m} {k} {n}: {got} {want}");
                }
                assert!(all.iter().all(|one| *one == all[0]), "{m} {k} {n}: widths differ");
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    tokengrid_test_support::alone!();
    let (a, b) = (values(1, 333 * 77), values(2, 77 * 130));
    let run = |threads| {
        let before = tch::get_num_threads();
        tch::set_num_threads(threads);
        let mut c = vec![0.0; 333 * 130];
        multiply(Factor::new(&a, 333, 77), Factor::new(&b, 77, 130), &mut c, Output::Set);
        tch::set_num_threads(before);
        c
    };
    assert!(run(1) == run(2) && run(1) == run(5));
}
