//! Logs and traces of this program.

use super::{Moment, Rules};
use crate::config::FormatOptions;
use crate::duration::Duration;
use crate::gates::Gate;
use crate::quote::quoted;

const LEVEL_MAX: u32 = i32::MAX as u32;

impl Rules<'_> {
    fn logging(&mut self, field: &'static str, words: String) {
        self.refuse(field, Moment::Logging, words);
    }
}

/// All of it.
pub(super) fn validate(rules: &mut Rules<'_>) {
    let logging = &rules.config.logs.logging;
    let flush = logging.flush_frequency.0;
    if flush <= Duration::ZERO {
        let words = format!(r#"logging.flushFrequency: Invalid value: "{flush}": Must be greater than zero"#);
        rules.logging("logging.flushFrequency", words);
    }
    if !["", "text", "json"].contains(&logging.format.as_str()) {
        let said = quoted(&logging.format);
        rules.logging("logging.format", format!("logging.format: Invalid value: {said}: Unsupported log format"));
    }
    let too_high = |place: &str, level: u32| format!("{place}: Invalid value: {level}: Must be <= {LEVEL_MAX}");
    if logging.verbosity > LEVEL_MAX {
        rules.logging("logging.verbosity", too_high("logging.verbosity", logging.verbosity));
    }
    let field = "logging.vmodule";
    if !logging.vmodule.is_empty() && !["", "text"].contains(&logging.format.as_str()) {
        rules.logging(field, format!("{field}: Forbidden: Only supported for text log format"));
    }
    for (nth, one) in logging.vmodule.iter().enumerate() {
        let place = format!("{field}[{nth}]");
        if one.file_pattern.is_empty() {
            rules.logging(field, format!("{place}: Required value: File pattern must not be empty"));
        }
        if one.file_pattern.contains(['=', ',']) {
            let said = quoted(&one.file_pattern);
            let words = format!("{place}: Invalid value: {said}: File pattern must not contain equal sign or comma");
            rules.logging(field, words);
        }
        if one.verbosity > LEVEL_MAX {
            rules.logging(field, too_high(&place, one.verbosity));
        }
    }
    options(rules, "logging.options.text", &logging.options.text);
    options(rules, "logging.options.json", &logging.options.json);
    tracing(rules);
}

fn options(rules: &mut Rules<'_>, field: &'static str, options: &FormatOptions) {
    if rules.gates.is_on(Gate::LoggingAlphaOptions) {
        return;
    }
    let off = "Forbidden: Feature LoggingAlphaOptions is disabled";
    if options.split_stream {
        rules.logging(field, format!("{field}.splitStream: {off}"));
    }
    if !options.info_buffer_size.amount().is_zero() {
        rules.logging(field, format!("{field}.infoBufferSize: {off}"));
    }
}

fn tracing(rules: &mut Rules<'_>) {
    const MILLION: i32 = 1_000_000;
    let Some(tracing) = &rules.config.logs.tracing else { return };
    if let Some(rate) = tracing.sampling_rate_per_million {
        let field = "tracing.samplingRatePerMillion";
        let mut refuse = |rule: &str| {
            rules.refuse(field, Moment::Validation, format!("{field}: Invalid value: {rate}: {rule}"));
        };
        if rate < 0 {
            refuse("sampling rate must be positive");
        } else if rate > MILLION {
            refuse("sampling rate per million must be less than or equal to one million");
        }
    }
    if let Some(endpoint) = &tracing.endpoint {
        let field = "tracing.endpoint";
        let scheme = match endpoint.split_once("://") {
            Some((scheme, _)) => scheme,
            None => "dns",
        };
        if !["dns", "unix", "unix-abstract"].contains(&scheme) {
            let words = format!(
                "{field}: Invalid value: {}: unsupported scheme: {scheme}.  Options are none, dns, unix, or unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md",
                quoted(endpoint)
            );
            rules.refuse(field, Moment::Validation, words);
        }
    }
}
