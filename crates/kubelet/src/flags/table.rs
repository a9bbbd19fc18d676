//! Every flag of the command line, as data: name, form, default as shown, notice, and where its value goes.
//!
//! Recorded from the kubelet 1.36.3; `tests/golden/flags.tsv` has the same rows.

mod cadvisor;
mod config;
mod embedded;
mod own;

/// The form that a flag's value must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// `true` or `false` in any of Go's spellings; without a value, `true`.
    Bool,
    /// A signed number of 32 bits, in any of Go's bases.
    Int32,
    /// A signed number of 64 bits, in any of Go's bases.
    Int64,
    /// Any text.
    Text,
    /// A duration as `1m30s`.
    Duration,
    /// One IPv4 or IPv6 address.
    Ip,
    /// Comma-separated values; given again, they add up.
    List,
    /// `key=value` pairs; given again, they add up.
    Map,
    /// `key=value` pairs, the value may be missing; given again, they add up.
    LooseMap,
    /// `key<value` pairs; given again, they add up.
    LangleMap,
    /// `key=true|false` pairs; given again, they add up.
    BoolMap,
    /// `key:value` pairs, a key may come more than once.
    Multimap,
    /// `key=value:effect`, comma-separated; given again, the last one counts.
    Taints,
    /// `numa-node:memory-type=quantity,…`, separated by `;`.
    ReservedMemory,
    /// An amount with unit as `64Ki`.
    Quantity,
    /// A log level, 0 or more.
    Level,
    /// `file-pattern=level`, comma-separated.
    Vmodule,
    /// `true`, `false` or `raw`; without a value, `true`.
    Version,
}

impl Kind {
    /// The type's name in `--help`, empty for a switch.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Bool => "",
            Self::Int32 => "int32",
            Self::Int64 => "int",
            Self::Text => "string",
            Self::Duration => "duration",
            Self::Ip => "ip",
            Self::List => "strings",
            Self::Map | Self::LooseMap | Self::LangleMap => "mapStringString",
            Self::BoolMap => "mapStringBool",
            Self::Multimap => "colonSeparatedMultimapStringString",
            Self::Taints => "[]v1.Taint",
            Self::ReservedMemory => "reserved-memory",
            Self::Quantity => "quantity",
            Self::Level => "Level",
            Self::Vmodule => "pattern=N,...",
            Self::Version => "version",
        }
    }

    /// What the flag means when it stands alone, for the kinds that may.
    pub(crate) fn value_alone(self) -> Option<&'static str> {
        match self {
            Self::Bool | Self::Version => Some("true"),
            Self::Int32
            | Self::Int64
            | Self::Text
            | Self::Duration
            | Self::Ip
            | Self::List
            | Self::Map
            | Self::LooseMap
            | Self::LangleMap
            | Self::BoolMap
            | Self::Multimap
            | Self::Taints
            | Self::ReservedMemory
            | Self::Quantity
            | Self::Level
            | Self::Vmodule => None,
        }
    }
}

/// What is said when a flag that is on its way out is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// Nothing: the flag stays.
    None,
    /// The configuration file has a field for it.
    ConfigFile,
    /// It came along with cAdvisor.
    Cadvisor,
    /// Words of its own.
    Own(&'static str),
}

impl Notice {
    /// The sentence after `Flag --x has been deprecated, `, empty when the flag stays.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::None => "",
            Self::ConfigFile => {
                "This parameter should be set via the config file specified by the Kubelet's --config flag. See https://kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file/ for more information."
            }
            Self::Cadvisor => {
                "This is a cadvisor flag that was mistakenly registered with the Kubelet. Due to legacy concerns, it will follow the standard CLI deprecation timeline before being removed."
            }
            Self::Own(text) => text,
        }
    }
}

/// Where a flag's value ends up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A field of KubeletConfiguration, as a dotted path of its JSON names.
    Field(&'static str),
    /// The command line only.
    Own,
    /// Accepted, nothing here reads it.
    Ignored,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    /// As shown by `--help`; empty when nothing is shown.
    pub(crate) default: &'static str,
    pub(crate) notice: Notice,
    pub(crate) target: Target,
    /// One or more lines; a word in backquotes stands for the type's name.
    pub(crate) usage: &'static str,
}

impl Flag {
    const fn own(name: &'static str, kind: Kind, default: &'static str, usage: &'static str) -> Self {
        Self { name, short: None, kind, default, notice: Notice::None, target: Target::Own, usage }
    }

    const fn field(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        path: &'static str,
        usage: &'static str,
    ) -> Self {
        Self { name, short: None, kind, default, notice: Notice::ConfigFile, target: Target::Field(path), usage }
    }

    const fn cadvisor(name: &'static str, kind: Kind, default: &'static str, usage: &'static str) -> Self {
        Self { name, short: None, kind, default, notice: Notice::Cadvisor, target: Target::Ignored, usage }
    }

    const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    const fn notice(mut self, notice: Notice) -> Self {
        self.notice = notice;
        self
    }

    /// Whether cAdvisor brought it: such flags have Go's plain parser with its shorter errors.
    pub(crate) fn is_foreign(&self) -> bool {
        self.notice == Notice::Cadvisor || self.name == "housekeeping-interval"
    }
}

/// A part of the table with its heading in `--help`.
pub(crate) struct Section {
    pub(crate) heading: &'static str,
    pub(crate) flags: &'static [Flag],
}

/// All flags, each section sorted by name.
pub(crate) const SECTIONS: [Section; 4] = [
    Section { heading: "Flags of the command line", flags: own::FLAGS },
    Section {
        heading: "Flags with a field in the configuration file, which wins over the file when given",
        flags: config::FLAGS,
    },
    Section { heading: "Flags accepted for old command lines, without effect unless said", flags: cadvisor::FLAGS },
    RUBELETS,
];

/// What only a program that is not called `kubelet` has.
const RUBELETS: Section = Section { heading: "Flags of the embedded runtime", flags: embedded::FLAGS };

impl Section {
    /// Whether upstream's command line has nothing like it.
    pub(crate) fn is_rubelets(&self) -> bool {
        self.heading == RUBELETS.heading
    }
}

impl Flag {
    /// Whether upstream's command line has no such flag.
    pub(crate) fn is_rubelets(&self) -> bool {
        embedded::has(self.name)
    }
}

/// All flags of all sections.
pub(crate) fn all() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.iter().flat_map(|section| section.flags)
}

/// The flag of that name, already with `-` for `_`.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

/// The flag with that one-letter name.
pub(crate) fn find_short(letter: char) -> Option<&'static Flag> {
    all().find(|flag| flag.short == Some(letter))
}
