//! Filters of a row of logits: top-k, then top-p. Dropped logits become minus infinity.

/// Memory that filters reuse from row to row.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    values: Vec<f32>,
    order: Vec<u32>,
}

/// Drops logits below the k-th largest; ties stay, 0 and k from V on are off.
pub(crate) fn top_k(logits_v: &mut [f32], k: usize, scratch: &mut Scratch) {
    if k == 0 || k >= logits_v.len() {
        return;
    }
    scratch.values.clear();
    scratch.values.extend_from_slice(logits_v);
    let (_, &mut threshold, _) = scratch.values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    for logit in logits_v.iter_mut().filter(|logit| **logit < threshold) {
        *logit = f32::NEG_INFINITY;
    }
}

/// Keeps the most likely tokens until their probability exceeds `p`; 1 is off. The first token beyond stays: what counts is
/// the probability before a token. `max` is the largest logit.
///
/// Little more of the row is sorted than is kept: a distribution's mass lies in few tokens.
pub(crate) fn top_p(logits_v: &mut [f32], p: f64, max: f32, scratch: &mut Scratch) {
    const FIRST_SORTED: usize = 64;
    if p >= 1.0 {
        return;
    }
    let weight = |logit: f32| f64::from((logit - max).exp());
    let total: f64 = logits_v.iter().map(|&logit| weight(logit)).sum();
    let order = &mut scratch.order;
    order.clear();
    order.extend(0..logits_v.len() as u32);
    // The more likely first; of equals, the lower index.
    let by_likelihood =
        |a: &u32, b: &u32| logits_v[*b as usize].total_cmp(&logits_v[*a as usize]).then_with(|| a.cmp(b));
    let (mut sorted, mut mass, mut kept) = (0, 0.0, 0);
    while kept == sorted && sorted < order.len() {
        let rest = &mut order[sorted..];
        let chunk = rest.len().min(if sorted == 0 { FIRST_SORTED } else { 3 * sorted });
        if chunk < rest.len() {
            rest.select_nth_unstable_by(chunk, by_likelihood);
        }
        rest[..chunk].sort_unstable_by(by_likelihood);
        sorted += chunk;
        while kept < sorted && mass <= p * total {
            mass += weight(logits_v[order[kept] as usize]);
            kept += 1;
        }
    }
    for &dropped in &order[kept..] {
        logits_v[dropped as usize] = f32::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::Kind;
    use tokengrid_model::Weights;
    use tokengrid_test_support::golden;

    fn max(logits_v: &[f32]) -> f32 {
        logits_v.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    #[test]
    fn golden_cases_equal_to_the_bit() {
        let data = Weights::open(&golden("filtering.safetensors")).unwrap();
        for case in 0..6 {
            let get = |name: &str| data.tensor(&format!("{case}.{name}")).unwrap();
            let (k, p) = (get("k").int64_value(&[]), get("p").double_value(&[]));
            let rows = |name: &str| Vec::<Vec<f32>>::try_from(get(name).to_kind(Kind::Float)).unwrap();
            for (row, (mut ours, want)) in rows("in").into_iter().zip(rows("out")).enumerate() {
                let mut scratch = Scratch::default();
                top_k(&mut ours, k as usize, &mut scratch);
                let max = max(&ours);
                top_p(&mut ours, p, max, &mut scratch);
                assert_eq!(ours, want, "case {case}, row {row}: k = {k}, p = {p}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_sorted_row_says_the_same(
            logits in prop::collection::vec(-8f32..8.0, 1..700),
            spread in 0f32..3.0,
            p in 0.01f64..1.0,
        ) {
            let row: Vec<f32> = logits.iter().map(|logit| logit * spread).collect();
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let weight = |i: usize| f64::from((row[i] - max(&row)).exp());
            let total: f64 = (0..row.len()).map(weight).sum();
            let mut before = 0.0;
            let mut want = row.clone();
            for i in order {
                if before > p * total {
                    want[i] = f32::NEG_INFINITY;
                }
                before += weight(i);
            }
            let mut ours = row.clone();
            top_p(&mut ours, p, max(&row), &mut Scratch::default());
            prop_assert_eq!(ours, want);
        }
    }
}
