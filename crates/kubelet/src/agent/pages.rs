//! The pages of statistics and metrics, from the agent's readings and the servers' counts.

use std::sync::Arc;

use rubelet_agent::stats::{StatsSettings, SystemCgroups};
use rubelet_api::metrics::Text;
use rubelet_host::proc;
use rubelet_server::metrics::{HttpCounts, Page, Pages, Preparing, Writing};

use super::view::NodeView;
use crate::assemble::Assembled;

impl Pages for NodeView {
    fn page(&self, page: Page) -> Preparing<'_> {
        Box::pin(async move {
            let write: Writing = match page {
                Page::Summary { is_cpu_and_memory_only } => {
                    let summary = self.stats.summary(is_cpu_and_memory_only).await;
                    Box::new(move |out| summary.write(out))
                }
                Page::Metrics => {
                    let (page, http, program) =
                        (self.stats.metrics_page().await, self.http.clone(), self.program.clone());
                    Box::new(move |out| {
                        page.write(&mut *out)?;
                        let mut text = Text::new(out);
                        http.tell(&mut text)?;
                        program.tell(&mut text)
                    })
                }
                Page::Cadvisor => {
                    let page = self.stats.cadvisor_page().await;
                    Box::new(move |out| page.write(out))
                }
                Page::Probes => {
                    let page = self.stats.probes_page();
                    Box::new(move |out| page.write(out))
                }
                Page::Slis => {
                    let http = self.http.clone();
                    Box::new(move |out| http.tell_slis(&mut Text::new(out)))
                }
                Page::Resource => {
                    let page = self.stats.resource_page().await;
                    Box::new(move |out| page.write(out))
                }
            };
            write
        })
    }

    fn http(&self) -> &Arc<HttpCounts> {
        &self.http
    }
}

/// Which parts of the machine statistics tell of.
pub(super) fn settings(assembled: &Assembled) -> StatsSettings {
    let resources = &assembled.config.resources;
    let given = &resources.kubelet_cgroups;
    let kubelet = if given.is_empty() { own_cgroup() } else { given.clone() };
    let period = assembled.config.pods.volume_stats_period;
    StatsSettings {
        cgroups: SystemCgroups {
            kubelet,
            runtime: assembled.flags.runtime_cgroups.clone(),
            misc: resources.system_cgroups.clone(),
        },
        volumes_age_max: (period.nanos > 0).then(|| period.to_std()),
    }
}

/// Where this process is; kubelet 1.36: where it has its own memory and CPU counted, if that is not the root.
fn own_cgroup() -> String {
    let text = proc::read_bounded(std::path::Path::new("/proc/self/cgroup"), 1 << 16).unwrap_or_default();
    let of = |wanted: &str| {
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|one| one == wanted).then(|| path.to_owned())
        })
    };
    // Version 2 has one line, without controllers.
    let both = of("memory").zip(of("cpu")).filter(|(memory, cpu)| memory == cpu).map(|(memory, _)| memory);
    both.or_else(|| of("")).filter(|path| path != "/").unwrap_or_default()
}
