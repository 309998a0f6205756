#![allow(missing_docs)]
use tokengrid_train::tokenizer::*;
use tokengrid_train::config::*;
use std::sync::atomic::AtomicBool;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    tch::set_num_threads(args[3].parse().unwrap());
    let set: Vec<String> = args[4..].to_vec();
    let config: TokenizerConfig = resolve(&Typed { file: None, set: &set, flags: vec![("model.preset", "tiny".into()), ("data.train", args[1].clone())] }).unwrap();
    let t = TokenizerTrainer::open(config, args[2].as_ref(), tch::Device::Cpu, false).unwrap();
    t.run(&AtomicBool::new(false), &mut |r| println!("{r:?}")).unwrap();
}
