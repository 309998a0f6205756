//! Which of several processes this one is.

use crate::exit::Usage;

/// This process and how many there are: typed, else as `torchrun` or SLURM set them, else the only one.
///
/// # Errors
/// A variable that is no number, or a rank that is not below the world size.
pub fn ranks(rank: Option<u32>, world_size: Option<u32>) -> anyhow::Result<(u32, u32)> {
    let from_env = |names: [&str; 2]| -> anyhow::Result<Option<u32>> {
        let Some((name, text)) = names.iter().find_map(|name| Some((name, std::env::var(name).ok()?))) else {
            return Ok(None);
        };
        let number =
            text.trim().parse().map_err(|_| Usage(format!("{name}={text} in the environment is no number")))?;
        Ok(Some(number))
    };
    let or_env = |typed: Option<u32>, names| typed.map_or_else(|| from_env(names), |number| Ok(Some(number)));
    // Who says that there is one process is not asked which one it is.
    let rank = if world_size == Some(1) { rank.or(Some(0)) } else { rank };
    let rank = or_env(rank, ["RANK", "SLURM_PROCID"])?.unwrap_or(0);
    let world_size = or_env(world_size, ["WORLD_SIZE", "SLURM_NTASKS"])?.unwrap_or(1);
    if rank >= world_size {
        return Err(
            Usage(format!("rank {rank} does not exist among {world_size} processes: ranks count from 0")).into()
        );
    }
    Ok((rank, world_size))
}
