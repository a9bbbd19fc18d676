//! What the agent does for the node as a whole: it looks at what is left, and removes what is of no use.

use std::sync::Arc;

use rubelet_core::collect::images::{Images, Policy};
use rubelet_core::evict::{Pressures, Rules};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::collector::Collector;
use crate::hands::Hands;
use crate::life::Life;
use crate::oom;
use crate::picture::Picture;
use crate::pressure::{Figures, Pressure};
use crate::roster::RosterNote;
use crate::rotation::{self, Rotation};
use crate::shutdown::{Shutdown, Watching};

/// The configuration's part of it.
#[derive(Clone, Debug)]
pub struct Care {
    /// When pods have to go.
    pub eviction: Rules,
    /// Where it is read what is left of the node.
    pub figures: Figures,
    /// `kernelMemcgNotification`.
    pub kernel_tells_of_memory: bool,
    /// When images have to go.
    pub images: Policy,
    /// When logs of containers are rotated; `None`: they are not.
    pub rotation: Option<Rotation>,
    /// How pods are stopped when the machine goes down; `None`: they are not.
    pub shutdown: Option<Shutdown>,
    /// Whether it is told when the machine ran out of memory.
    pub tells_of_oom: bool,
}

impl Care {
    /// Nothing has to go, ever.
    pub fn off() -> Self {
        let never = Policy {
            high_percent: 100,
            low_percent: 100,
            age_min: std::time::Duration::ZERO,
            age_max: std::time::Duration::ZERO,
        };
        Self {
            eviction: Rules::default(),
            figures: Figures::default(),
            kernel_tells_of_memory: false,
            images: never,
            rotation: None,
            shutdown: None,
            tells_of_oom: false,
        }
    }
}

/// What the tasks stand on.
pub(crate) struct Standing {
    pub(crate) node_name: String,
    pub(crate) hands: Arc<Hands>,
    pub(crate) picture: Picture,
    pub(crate) clock: Clock,
    pub(crate) roster: mpsc::Sender<RosterNote>,
}

/// Starts the tasks.
pub(crate) fn begin(care: Care, on: Standing, pressures: watch::Sender<Pressures>, life: &Life) {
    let Standing { node_name, hands, picture, clock, roster } = on;
    if let Some(settings) = care.shutdown {
        let (node_name, picture, roster) = (node_name.clone(), picture.clone(), roster.clone());
        let (events, metrics) = (hands.events.clone(), hands.metrics.clone());
        life.spawn(Watching { settings, node_name, events, picture, roster, metrics }.run());
    }
    if care.tells_of_oom {
        life.spawn(oom::watch(node_name.clone(), hands.events.clone()));
    }
    if let Some(rotation) = care.rotation {
        life.spawn(rotation::run(rotation, hands.clone(), picture.clone()));
    }
    let (collector, demands) = mpsc::channel(4);
    let collecting = Collector {
        policy: care.images,
        node_name: node_name.clone(),
        hands: hands.clone(),
        picture: picture.clone(),
        clock,
        roster: roster.clone(),
        images: Images::new(clock.now().mono),
        has_failed: false,
    };
    life.spawn(collecting.run(demands));
    let pressure = Pressure {
        rules: care.eviction,
        figures: care.figures,
        kernel_tells: care.kernel_tells_of_memory,
        node_name,
        hands,
        picture,
        clock,
        roster,
        collector,
        pressures,
    };
    life.spawn(pressure.run());
}
