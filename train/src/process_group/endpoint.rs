//! The address of a run's store, from the variables that the launcher sets.

use crate::TrainError;

/// From this number on, SLURM's step ids stand for special steps, such as the batch script and the interactive shell.
const FIRST_SPECIAL_STEP: u32 = 0xffff_fff0;

/// Ports for runs that SLURM starts: `FIRST_PORT .. FIRST_PORT + PORTS`, below the ephemeral ports of common systems.
const FIRST_PORT: u64 = 20_000;
const PORTS: u64 = 10_000;

/// Who holds the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Rank 0 of the run.
    Rank0,
    /// `torchrun`, on its first node.
    Agent,
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who holds it.
    pub holder: Holder,
}

impl Endpoint {
    /// From `MASTER_ADDR` and `MASTER_PORT` (plain variables, `torchrun`); without them, in a step of SLURM, the first host of
    /// the step. `variable` gives the value of an environment variable.
    ///
    /// # Errors
    /// A variable is missing, or is not a port.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Endpoint, TrainError> {
        // An empty variable counts as not set.
        let trimmed = |name: &str| variable(name).map(|text| text.trim().to_owned());
        let text = |name: &str| trimmed(name).filter(|text| !text.is_empty());
        let refuse = |place: &str, what: String| Err(TrainError::Config { place: place.into(), what });
        let is_agent = text("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let holder = if is_agent { Holder::Agent } else { Holder::Rank0 };
        match (text("MASTER_ADDR"), text("MASTER_PORT")) {
            (Some(host), Some(port)) => match port.parse() {
                Ok(port) if port > 0 => Ok(Endpoint { host, port, holder }),
                _ => refuse("MASTER_PORT", format!("`{port}` in the environment is not a port; expected 1 to 65535")),
            },
            (Some(_), None) => refuse("MASTER_PORT", "it is not set, but MASTER_ADDR is; give every process both".into()),
            (None, Some(_)) => refuse("MASTER_ADDR", "it is not set, but MASTER_PORT is; give every process both".into()),
            (None, None) => match slurm(&text) {
                Some((host, port)) => Ok(Endpoint { host, port, holder: Holder::Rank0 }),
                None => refuse(
                    "MASTER_ADDR",
                    "the processes of this run have no place to meet: start them with `torchrun` or `srun`, or give every \
                     process MASTER_ADDR (the host of rank 0) and MASTER_PORT (a free port there), besides RANK and WORLD_SIZE"
                        .into(),
                ),
            },
        }
    }
}

/// The first host of a step of SLURM, and a port that other steps do not use.
fn slurm(text: &dyn Fn(&str) -> Option<String>) -> Option<(String, u16)> {
    let step: u32 = text("SLURM_STEP_ID")?.parse().ok().filter(|&step| step < FIRST_SPECIAL_STEP)?;
    let host = first_host(&text("SLURM_STEP_NODELIST")?)?;
    let job: u64 = text("SLURM_JOB_ID")?.parse().ok()?;
    let port = FIRST_PORT + (job * 31 + u64::from(step)) % PORTS;
    Some((host, u16::try_from(port).ok()?))
}

/// The first of `gpu[07-09,12]-ib,login1`, which is `gpu07-ib`: each group of brackets stands for its first number, up to the
/// first comma outside of them.
fn first_host(list: &str) -> Option<String> {
    let (mut host, mut rest) = (String::new(), list);
    while let Some(at) = rest.find(['[', ',']) {
        host.push_str(&rest[..at]);
        if rest[at..].starts_with(',') {
            rest = "";
            break;
        }
        let (numbers, after) = rest[at + 1..].split_once(']')?;
        host.push_str(numbers.split(['-', ',']).next()?);
        rest = after;
    }
    host.push_str(rest);
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &str) -> Result<Endpoint, String> {
        let variable = |name: &str| {
            let mut pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        Endpoint::from_environment(&variable).map_err(|error| error.to_string())
    }

    #[test]
    fn launchers_in_their_order() {
        let at = |host: &str, port, holder| Ok(Endpoint { host: host.into(), port, holder });
        let plain = "MASTER_ADDR=a.example MASTER_PORT=29500";
        assert_eq!(found(plain), at("a.example", 29500, Holder::Rank0));
        assert_eq!(found(&format!("{plain} TORCHELASTIC_USE_AGENT_STORE=True")), at("a.example", 29500, Holder::Agent));
        let step = "SLURM_JOB_ID=7 SLURM_STEP_ID=2 SLURM_STEP_NODELIST=gpu[07-09,12]";
        assert_eq!(found(step), at("gpu07", 20_219, Holder::Rank0));
        assert_eq!(found(&format!("{step} {plain}")), at("a.example", 29500, Holder::Rank0));
    }

    #[test]
    fn what_is_missing_is_named() {
        let interactive = "SLURM_JOB_ID=7 SLURM_STEP_ID=4294967290 SLURM_STEP_NODELIST=gpu07";
        for (variables, word) in [
            ("", "torchrun"),
            (interactive, "torchrun"),
            ("MASTER_ADDR=a", "MASTER_PORT"),
            ("MASTER_PORT=1", "MASTER_ADDR"),
            ("MASTER_ADDR=a MASTER_PORT=0", "not a port"),
            ("MASTER_ADDR=a MASTER_PORT=70000", "not a port"),
        ] {
            let refused = found(variables).unwrap_err();
            assert!(refused.contains(word), "{variables}: {refused}");
        }
    }

    #[test]
    fn first_hosts_of_lists() {
        for (list, host) in [
            ("gpu7", "gpu7"),
            ("a,b[1-2]", "a"),
            ("gpu[07-09]", "gpu07"),
            ("gpu[3,5]", "gpu3"),
            ("gpu[07-09,12]-ib,login1", "gpu07-ib"),
            ("node[01-03,7],fat2", "node01"),
            ("login1,gpu[07-09]", "login1"),
            ("rack[2-3]node[01-16],gpu[1-2]", "rack2node01"),
            ("gpu-a100-[1-2].cluster.example", "gpu-a100-1.cluster.example"),
            ("[07-09]", "07"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(host), "{list}");
        }
        for list in ["", ",a", "gpu[07-09"] {
            assert_eq!(first_host(list), None, "{list}");
        }
    }
}
