//! Looking at what the node says of itself: addresses, images, the machine.

use std::net::IpAddr;
use std::time::Duration;

use rubelet_core::node::addresses::{AddressRules, AddressSight};
use rubelet_core::node::object::{ImageSight, SystemFacts};
use rubelet_cri::{Runtime, RuntimeError};
use rubelet_host::task::Beside;
use rubelet_host::{chain, proc};

/// How long the resolver may take before the node does without what it says.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(1);

/// What the machine says of itself. Blocks on files.
pub(super) fn system() -> SystemFacts {
    let machine_id = proc::machine_id();
    // kubelet 1.36: a machine whose firmware says nothing goes by the other id.
    let system_uuid = Some(proc::system_uuid()).filter(|id| !id.is_empty()).unwrap_or_else(|| machine_id.clone());
    let boot_id = proc::boot_id().unwrap_or_else(|e| {
        tracing::warn!(err = chain(&e), "the kernel does not name this boot");
        String::new()
    });
    SystemFacts { machine_id, system_uuid, boot_id, kernel: proc::kernel_release(), os_image: proc::os_image() }
}

/// Looks at addresses; a resolver that does not answer is asked once at a time.
#[derive(Default)]
pub(super) struct Addresses {
    seen: AddressSight,
    asking: Option<Beside<Vec<IpAddr>>>,
}

impl Addresses {
    /// What is seen now; of the node's name what the resolver said last.
    pub(super) async fn look(&mut self, rules: &AddressRules, name: &str) {
        let local = rubelet_host::task::blocking(|| {
            let interfaces =
                proc::interface_addresses().map(|all| -> Vec<IpAddr> { all.into_iter().map(|(_, ip)| ip).collect() });
            (interfaces, proc::default_addresses())
        });
        if let Ok((interfaces, defaults)) = local.await {
            self.seen.interfaces = interfaces.unwrap_or_else(|e| {
                tracing::debug!(err = %e, "listing the addresses of interfaces failed");
                std::mem::take(&mut self.seen.interfaces)
            });
            self.seen.defaults = defaults.unwrap_or_default();
        }
        if rules.needs_lookup(name) {
            self.look_up(name).await;
        }
    }

    /// What was seen last.
    pub(super) fn seen(&self) -> &AddressSight {
        &self.seen
    }

    async fn look_up(&mut self, name: &str) {
        let name = name.to_owned();
        let mut asking = self
            .asking
            .take()
            .unwrap_or_else(|| rubelet_host::task::blocking(move || proc::lookup(&name).unwrap_or_default()));
        match tokio::time::timeout(LOOKUP_PATIENCE, &mut asking).await {
            Ok(found) => self.seen.looked_up = found.unwrap_or_default(),
            Err(_) => self.asking = Some(asking),
        }
    }
}

/// The runtime's images.
///
/// # Errors
/// Its refusal.
pub(super) async fn images(runtime: &dyn Runtime) -> Result<Vec<ImageSight>, RuntimeError> {
    let all = runtime.list_images(None).await?;
    let image = |one: rubelet_proto::cri::Image| ImageSight {
        id: one.id,
        digests: one.repo_digests,
        tags: one.repo_tags,
        bytes: one.size,
    };
    Ok(all.into_iter().map(image).collect())
}
