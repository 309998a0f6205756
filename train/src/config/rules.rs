//! Rules for the keys of the reference's YAML files.

use super::reference::{Reference, Rule};

/// The files that can be converted.
pub(super) static KINDS: [&Reference; 2] = [&AR, &TOKENIZER];

/// Models of the same family that cannot be trained here, and what they are.
pub(super) const NOT_HERE: &[(&str, &str)] = &[
    (
        "Open_MAGVIT2.models.lfqgan_pretrain.VQModel",
        "the tokenizer's pretraining on web images, with schedules of its own",
    ),
    ("Open_MAGVIT2.models.video_lfqgan.VQModel", "a tokenizer of videos"),
];

const LAUNCHED: &str = "`torchrun` or `srun` says how many processes there are; the batch size is that of a process";
const FOLDER: &str = "checkpoints and metrics are written to the run's folder";
const BY_ITERATION: &str = "learning rates of that schedule are not here; see `train.warmup_steps` and `train.lr_end`";
const PROGRESS: &str = "learning rate and all metrics are always logged";

/// Rules for what both kinds of files say about the trainer.
pub(super) const COMMON: &[(&str, Rule)] = &[
    ("model.class_path", Rule::Not("")),
    ("trainer.max_epochs", Rule::Key("train.epochs")),
    ("trainer.log_every_n_steps", Rule::Key("train.log_every")),
    ("data.init_args.batch_size", Rule::Key("train.batch_size")),
    ("seed_everything", Rule::Key("train.seed")),
    ("trainer.accelerator", Rule::Not("`--device` chooses it")),
    ("trainer.strategy", Rule::Not(LAUNCHED)),
    ("trainer.devices", Rule::Not(LAUNCHED)),
    ("trainer.num_nodes", Rule::Not(LAUNCHED)),
    ("trainer.callbacks.*", Rule::Not(FOLDER)),
    ("trainer.logger.*", Rule::Not(PROGRESS)),
    ("trainer.num_sanity_val_steps", Rule::Not("nothing is validated before the first step")),
    ("data.init_args.num_workers", Rule::Not("there is a decoding thread for every core")),
    ("data.class_path", Rule::Always("main.DataModuleFromConfig")),
    ("ckpt_path", Rule::Not("a run continues from its folder; `train.init_from` starts from weights")),
];

/// `imagenet_conditional_llama_*.yaml`.
pub(crate) static AR: Reference = Reference {
    class: "Open_MAGVIT2.models.cond_transformer_gpt.Net2NetTransformer",
    command: "train ar",
    rules: &[
        ("model.init_args.learning_rate", Rule::Key("train.peak_lr")),
        ("model.init_args.weight_decay", Rule::Key("train.weight_decay")),
        ("model.init_args.wp", Rule::Key("train.warmup_epochs")),
        ("model.init_args.wp0", Rule::Key("train.wp0")),
        ("model.init_args.wpe", Rule::Key("train.wpe")),
        // The decay at the end; 0 leaves it constant.
        ("model.init_args.twde", Rule::Only("0")),
        ("model.init_args.first_stage_key", Rule::Only("image")),
        ("model.init_args.cond_stage_key", Rule::Only("class_label")),
        ("model.init_args.token_factorization", Rule::Only("true")),
        ("model.init_args.transformer_config.target", Rule::Only("src.Open_MAGVIT2.modules.transformer.gpt.GPT")),
        ("model.init_args.transformer_config.params.dim", Rule::Key("model.dim")),
        ("model.init_args.transformer_config.params.n_head", Rule::Key("model.n_head")),
        ("model.init_args.transformer_config.params.spatial_n_layer", Rule::Key("model.spatial_n_layer")),
        ("model.init_args.transformer_config.params.factorized_n_layer", Rule::Key("model.factorized_n_layer")),
        ("model.init_args.transformer_config.params.factorized_bits", Rule::Key("model.factorized_bits")),
        ("model.init_args.transformer_config.params.block_size", Rule::Key("model.block_size")),
        ("model.init_args.transformer_config.params.class_num", Rule::Key("model.class_num")),
        ("model.init_args.transformer_config.params.token_drop", Rule::Key("model.token_drop")),
        ("model.init_args.transformer_config.params.resid_dropout_p", Rule::Key("model.resid_dropout")),
        ("model.init_args.transformer_config.params.ffn_dropout_p", Rule::Key("model.ffn_dropout")),
        ("model.init_args.transformer_config.params.token_factorization", Rule::Only("true")),
        (
            "model.init_args.transformer_config.params.vocab_size",
            Rule::Not("`model.factorized_bits` are the vocabularies"),
        ),
        ("model.init_args.transformer_config.params.cond_dim", Rule::Not("classes are embedded at `model.dim`")),
        ("model.init_args.first_stage_config.*", Rule::Not("the tokenizer is that of the cache")),
        ("model.init_args.cond_stage_config.*", Rule::Not("labels are those of the cache")),
        ("model.init_args.permuter_config.*", Rule::Not("the class has an embedding of its own")),
        ("data.init_args.train.*", Rule::Not("tokens come from `--cache`")),
        ("data.init_args.validation.*", Rule::Not("tokens come from `--val-cache`")),
        ("data.init_args.test.*", Rule::Not("see `eval ar`")),
        ("trainer.max_steps", Rule::Key("train.max_steps")),
        ("trainer.accumulate_grad_batches", Rule::Key("train.grad_accum")),
        ("trainer.gradient_clip_val", Rule::Key("train.grad_clip")),
        ("trainer.precision", Rule::Precision("bf16")),
        ("trainer.check_val_every_n_epoch", Rule::Not("see `train.val_every`")),
    ],
    required: &["model.init_args.token_factorization", "model.init_args.learning_rate"],
    defaults: &[
        ("model.init_args.weight_decay", "train.weight_decay", "0.01"),
        ("model.init_args.wp", "train.warmup_epochs", "0.0"),
        ("model.init_args.wpe", "train.wpe", "0.01"),
        ("trainer.gradient_clip_val", "train.grad_clip", "inf"),
    ],
};

/// `imagenet_lfqgan_*.yaml`.
pub(crate) static TOKENIZER: Reference = Reference {
    class: "Open_MAGVIT2.models.lfqgan.VQModel",
    command: "train tokenizer",
    rules: &[
        ("model.init_args.ddconfig.ch", Rule::Key("model.ch")),
        ("model.init_args.ddconfig.ch_mult", Rule::Key("model.ch_mult")),
        ("model.init_args.ddconfig.num_res_blocks", Rule::Key("model.num_res_blocks")),
        ("model.init_args.ddconfig.z_channels", Rule::Key("model.z_channels")),
        ("model.init_args.ddconfig.double_z", Rule::Only("false")),
        ("model.init_args.ddconfig.in_channels", Rule::Only("3")),
        ("model.init_args.ddconfig.out_ch", Rule::Only("3")),
        ("model.init_args.ddconfig.resolution", Rule::Not("the network takes any size; see `train.image_size`")),
        (
            "model.init_args.lossconfig.target",
            Rule::Only("src.Open_MAGVIT2.modules.losses.vqperceptual.VQLPIPSWithDiscriminator"),
        ),
        ("model.init_args.lossconfig.params.disc_conditional", Rule::Only("false")),
        ("model.init_args.lossconfig.params.disc_in_channels", Rule::Only("3")),
        ("model.init_args.lossconfig.params.use_blur", Rule::Only("false")),
        ("model.init_args.lossconfig.params.use_actnorm", Rule::Only("false")),
        ("model.init_args.lossconfig.params.disc_start", Rule::Key("loss.disc_start")),
        ("model.init_args.lossconfig.params.disc_num_layers", Rule::Key("loss.disc_num_layers")),
        ("model.init_args.lossconfig.params.disc_ndf", Rule::Key("loss.disc_ndf")),
        ("model.init_args.lossconfig.params.disc_loss", Rule::Key("loss.disc_loss")),
        (
            "model.init_args.lossconfig.params.disc_weight",
            Rule::Not("the adversarial loss has the weight `loss.gen_loss_weight`"),
        ),
        ("model.init_args.lossconfig.params.gen_loss_weight", Rule::Key("loss.gen_loss_weight")),
        ("model.init_args.lossconfig.params.lecam_loss_weight", Rule::Key("loss.lecam_loss_weight")),
        ("model.init_args.lossconfig.params.perceptual_weight", Rule::Key("loss.perceptual_weight")),
        ("model.init_args.lossconfig.params.codebook_weight", Rule::Key("loss.codebook_weight")),
        ("model.init_args.lossconfig.params.commit_weight", Rule::Key("loss.commit_weight")),
        ("model.init_args.lossconfig.params.codebook_enlarge_ratio", Rule::Key("loss.codebook_enlarge_ratio")),
        ("model.init_args.lossconfig.params.codebook_enlarge_steps", Rule::Key("loss.codebook_enlarge_steps")),
        ("model.init_args.n_embed", Rule::Not("the codebook has 2^`model.z_channels` codes")),
        ("model.init_args.embed_dim", Rule::Not("it is `model.z_channels`")),
        ("model.init_args.learning_rate", Rule::Key("train.lr")),
        ("model.init_args.lr_drop_epoch", Rule::Key("train.lr_drop_epochs")),
        ("model.init_args.lr_drop_rate", Rule::Key("train.lr_drop_rate")),
        ("model.init_args.sample_minimization_weight", Rule::Only("1")),
        ("model.init_args.batch_maximization_weight", Rule::Only("1")),
        ("model.init_args.scheduler_type", Rule::Only("None")),
        ("model.init_args.sche_type", Rule::Refused(BY_ITERATION)),
        ("model.init_args.lr_drop_iter", Rule::Refused(BY_ITERATION)),
        ("model.init_args.resume_lr", Rule::Refused("set `train.lr` in a run of its own, with `train.init_from`")),
        ("model.init_args.use_ema", Rule::Always("true")),
        ("data.init_args.train.params.config.size", Rule::Key("train.image_size")),
        ("data.init_args.train.*", Rule::Not("images come from `--data`")),
        ("data.init_args.validation.*", Rule::Not("images come from `--val`, at `train.image_size`")),
        ("data.init_args.test.*", Rule::Not("see `eval reconstruction`")),
        ("trainer.max_steps", Rule::Key("train.max_steps")),
        ("trainer.precision", Rule::Precision("fp16")),
        ("trainer.check_val_every_n_epoch", Rule::Always("1")),
        ("trainer.val_check_interval", Rule::Key("train.val_every")),
    ],
    required: &[
        "model.init_args.learning_rate",
        "model.init_args.scheduler_type",
        "model.init_args.lossconfig.params.gen_loss_weight",
    ],
    defaults: &[
        ("model.init_args.lossconfig.params.codebook_weight", "loss.codebook_weight", "1.0"),
        ("model.init_args.lossconfig.params.codebook_enlarge_ratio", "loss.codebook_enlarge_ratio", "3.0"),
        ("model.init_args.lossconfig.params.lecam_loss_weight", "loss.lecam_loss_weight", "0.0"),
        ("model.init_args.lr_drop_epoch", "train.lr_drop_epochs", "[]"),
    ],
};
