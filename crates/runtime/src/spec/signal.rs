//! The signal that stops a container.

use rubelet_proto::cri;

use super::SpecError;
use crate::image::document::Config;

const SIGTERM: i32 = 15;
/// The first of the real-time signals that programs may use, and the last.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// The container's own, the image's, SIGTERM.
pub(super) fn to_stop(config: &cri::ContainerConfig, image: &Config) -> Result<i32, SpecError> {
    let own = config.stop_signal();
    if own != cri::Signal::RuntimeDefault {
        let name = own.as_str_name();
        return number(name).ok_or_else(|| SpecError::new(format!("failed to parse stop signal {name:?}")));
    }
    match image.config.stop_signal.as_str() {
        "" => Ok(SIGTERM),
        text => number(text).ok_or_else(|| SpecError::new(format!("failed to parse stop signal {text:?}"))),
    }
}

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` or CRI's `SIGRTMINPLUS3`.
fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: &str, word: &str| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign).or_else(|| rest.strip_prefix(word))?.parse::<i32>().ok(),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(rest, "+", "PLUS").map(|n| RTMIN + n).filter(|n| (RTMIN..=RTMAX).contains(n));
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(rest, "-", "MINUS").map(|n| RTMAX - n).filter(|n| (RTMIN..=RTMAX).contains(n));
    }
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    NAMES.iter().position(|known| *known == name).and_then(|at| i32::try_from(at + 1).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_all_their_names() {
        let cases = [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGIOT", Some(6)),
            ("SIGPOLL", Some(29)),
            ("SIGSYS", Some(31)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMINPLUS3", Some(37)),
            ("SIGRTMAXMINUS14", Some(50)),
            ("SIGRTMAX-31", None),
            ("SIGRTMIN+x", None),
            ("0", None),
            ("65", None),
            ("SIGNONE", None),
        ];
        for (text, want) in cases {
            assert_eq!(number(text), want, "{text}");
        }
        for signal in 1..=cri::Signal::Sigrtmax.into() {
            let signal = cri::Signal::try_from(signal).unwrap();
            assert!(number(signal.as_str_name()).is_some(), "{}", signal.as_str_name());
        }
    }

    #[test]
    fn the_containers_own_before_the_images() {
        let mut image = Config::default();
        let mut config = cri::ContainerConfig::default();
        assert_eq!(to_stop(&config, &image).unwrap(), 15);
        image.config.stop_signal = "SIGQUIT".to_owned();
        assert_eq!(to_stop(&config, &image).unwrap(), 3);
        config.stop_signal = cri::Signal::Sigusr1.into();
        assert_eq!(to_stop(&config, &image).unwrap(), 10);
        image.config.stop_signal = "x".to_owned();
        config.stop_signal = 0;
        assert_eq!(to_stop(&config, &image).unwrap_err().to_string(), "failed to parse stop signal \"x\"");
    }
}
