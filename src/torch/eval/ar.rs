//! `tokengrid eval ar`: the loss of an autoregressive model.

use crate::args::{EvalArArgs, Global};
use crate::signals;
use crate::terminal::print_json;
use crate::torch::model;
use serde_json::json;
use tokengrid_cache::Access;
use tokengrid_train::ar::{Unpacker, evaluate};

/// Runs the command.
pub fn run(args: &EvalArArgs, global: &Global) -> anyhow::Result<()> {
    let runtime = model::runtime(&args.device, global)?;
    let (ar, weights) = model::ar_model_for(&args.cache, &args.checkpoint, args.n_head, &runtime)?;
    let cache = Unpacker::open(&args.cache, &ar.config, Access::Map)?;
    cache.check_tokenizer(weights.tokenizer.as_deref().unwrap_or_default())?;
    let result = evaluate(&ar, &cache, runtime.device, args.limit, Some(signals::flag()))?;
    if global.json {
        return print_json(&json!({
            "loss": result.loss, "loss_pre": result.loss_pre, "loss_post": result.loss_post, "tokens": result.tokens,
        }));
    }
    println!(
        "loss {:.4} = {:.4} (low bits) + {:.4} (high bits), nats a token",
        result.loss, result.loss_pre, result.loss_post
    );
    println!("{} tokens", result.tokens);
    Ok(())
}
