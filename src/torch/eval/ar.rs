//! `tokengrid eval ar`: the loss of an autoregressive model.

use super::among::join_all;
use crate::args::{EvalArArgs, Global};
use crate::signals;
use crate::terminal::{counted, print_json};
use crate::torch::model;
use serde_json::json;
use tokengrid_cache::Access;
use tokengrid_model::ar::ArModel;
use tokengrid_train::ar::{Unpacker, evaluate_among};
use tokengrid_train::process_group::Fact;

/// Runs the command.
pub(super) fn run(args: &EvalArArgs, global: &Global) -> anyhow::Result<()> {
    let runtime = model::runtime(&args.device, global)?;
    let (ar, weights) =
        model::ar_model_for(&args.cache, &args.checkpoint, args.model_variant.as_deref(), args.n_head, &runtime)?;
    model::note_averages(&weights, args.model_variant.as_deref(), global);
    let cache = Unpacker::open(&args.cache, &ar.config, Access::Map)?;
    cache.check_tokenizer(weights.tokenizer.as_deref().unwrap_or_default())?;
    let mut processes = join_all(&args.among, || Ok(facts(&ar, &cache, args.limit)))?;
    processes.use_device(runtime.device)?;
    let result = evaluate_among(&ar, &cache, runtime.device, args.limit, Some(signals::flag()), &*processes)?;
    processes.finish()?;
    if !processes.is_first() {
        return Ok(());
    }
    if global.json {
        return print_json(&json!({
            "loss": result.loss, "loss_pre": result.loss_pre, "loss_post": result.loss_post, "tokens": result.tokens,
        }));
    }
    println!(
        "loss {:.4} = {:.4} (low bits) + {:.4} (high bits), nats per token",
        result.loss, result.loss_pre, result.loss_post
    );
    println!("{}", counted(result.tokens as usize, "token"));
    Ok(())
}

/// Values that must be equal in all processes: tokens, model configuration and number of rows.
fn facts(ar: &ArModel, cache: &Unpacker, limit: Option<usize>) -> Vec<Fact> {
    vec![
        Fact::new("the cache's content hash", &cache.manifest().content_hash),
        Fact::new("the model", format!("{:?}", ar.config)),
        Fact::new("--limit", limit.map_or("none".into(), |limit| limit.to_string())),
    ]
}
