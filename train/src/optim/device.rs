//! The update by libtorch's operations. The numbers that change from step to step lie in tensors on the device, so that a step can
//! be captured as a graph and repeated.

use super::{AdamW, Ema, Gradients};
use tch::{Kind, Tensor};

/// Numbers that are updated at a time: what they need besides is as large.
const PART: i64 = 1 << 24;

/// Of a group, in one step.
#[derive(Debug)]
pub(super) struct StepNumbers {
    /// What the weight decay leaves of a parameter.
    keep: Tensor,
    /// Root of the second moment's bias.
    correction2: Tensor,
    /// The learning rate over the first moment's bias, inverted and negated.
    divisor: Tensor,
}

impl StepNumbers {
    /// Beside this tensor.
    pub(super) fn beside(flat: &Tensor) -> StepNumbers {
        let number = || Tensor::zeros([], (Kind::Float, flat.device()));
        StepNumbers { keep: number(), correction2: number(), divisor: number() }
    }

    /// Gives them the values of a step, whose learning rate over the first moment's bias is `rate`.
    pub(super) fn set(&self, keep: f64, correction2: f64, rate: f64) {
        let values = [(&self.keep, keep), (&self.correction2, correction2), (&self.divisor, -1.0 / rate)];
        for (number, value) in values {
            // The value is an argument of the kernel: nothing is copied.
            let _ = number.shallow_clone().fill_(value);
        }
    }

    fn shallow_clone(&self) -> StepNumbers {
        let StepNumbers { keep, correction2, divisor } = self;
        let [keep, correction2, divisor] = [keep, correction2, divisor].map(Tensor::shallow_clone);
        StepNumbers { keep, correction2, divisor }
    }
}

/// An update that is done again and again, over the buffers of an optimizer and the gradients that it is made with.
#[derive(Debug)]
pub(crate) struct DeviceUpdate {
    groups: Vec<GroupUpdate>,
    betas: [f64; 2],
    eps: f64,
}

/// This process's parts of a group's buffers.
#[derive(Debug)]
struct GroupUpdate {
    gradient: Tensor,
    parameter: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    numbers: StepNumbers,
}

impl DeviceUpdate {
    /// Of `optimizer`, with these gradients.
    pub(crate) fn new(optimizer: &AdamW, gradients: &Gradients) -> DeviceUpdate {
        let groups = optimizer.groups.iter().zip(&gradients.0).map(|(group, gradient)| GroupUpdate {
            gradient: optimizer.shard.own(gradient),
            parameter: optimizer.shard.own(&group.flat),
            exp_avg: group.exp_avg.shallow_clone(),
            exp_avg_sq: group.exp_avg_sq.shallow_clone(),
            numbers: group.numbers.shallow_clone(),
        });
        DeviceUpdate { groups: groups.collect(), betas: optimizer.config.betas, eps: optimizer.config.eps }
    }

    /// One update, with the numbers that [`AdamW::begin_step`] has set.
    pub(crate) fn apply(&self) {
        let _no_grad = tch::no_grad_guard();
        let [beta1, beta2] = self.betas;
        for group in &self.groups {
            let StepNumbers { keep, correction2, divisor } = &group.numbers;
            let parts = |tensor: &Tensor| tensor.split(PART, 0);
            let (exp_avgs, exp_avg_sqs) = (parts(&group.exp_avg), parts(&group.exp_avg_sq));
            for (((mut parameter, gradient), mut exp_avg), mut exp_avg_sq) in
                parts(&group.parameter).into_iter().zip(parts(&group.gradient)).zip(exp_avgs).zip(exp_avg_sqs)
            {
                let _ = parameter.g_mul_(keep);
                let _ = exp_avg.lerp_(&gradient, 1.0 - beta1);
                let _ = exp_avg_sq.g_mul_scalar_(beta2).addcmul_(&gradient, &(&gradient * (1.0 - beta2)));
                let mut denominator = exp_avg_sq.sqrt().g_div_(correction2).g_add_scalar_(self.eps);
                let _ = parameter.addcdiv_(&exp_avg, &denominator.g_mul_(divisor));
            }
        }
    }
}

/// The moving average of an optimizer's parameters, moved again and again.
#[derive(Debug)]
pub(crate) struct DeviceAverages {
    /// An average and this process's part of the parameters, for each group.
    pairs: Vec<(Tensor, Tensor)>,
    rest: f64,
}

impl DeviceAverages {
    /// Of `ema`, which belongs to `optimizer`.
    pub(crate) fn new(ema: &Ema, optimizer: &AdamW) -> DeviceAverages {
        let own = |flat: &Tensor| optimizer.shard.own(flat);
        let pairs = ema.flats.iter().map(Tensor::shallow_clone).zip(optimizer.parameters().map(own));
        DeviceAverages { pairs: pairs.collect(), rest: 1.0 - ema.decay }
    }

    /// `average += (1 - decay) * (parameter - average)`.
    pub(crate) fn apply(&self) {
        let _no_grad = tch::no_grad_guard();
        for (average, parameter) in &self.pairs {
            let _ = average.shallow_clone().lerp_(parameter, self.rest);
        }
    }
}
