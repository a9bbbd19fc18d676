//! Pulling an image; long pulls say how far they are.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rubelet_cri::RuntimeError;
use rubelet_proto::cri;

use crate::embedded::Engine;
use crate::image::{Progress, ProgressSink};

/// Between two words about one pull.
const PERIOD: Duration = Duration::from_secs(10);

/// The image's id.
pub(crate) async fn pull_image(
    engine: &Arc<Engine>,
    image: cri::ImageSpec,
    auth: Option<cri::AuthConfig>,
) -> Result<String, RuntimeError> {
    // Imported by who owns the machine, to be used as they are: no registry is asked for them.
    if let Some(imported) = engine.images.status(&image.image).filter(|known| known.pinned) {
        return Ok(imported.id);
    }
    let pulled = engine.images.pull(&image.image, auth, Some(teller(image.image.clone()))).await;
    pulled.map(|pulled| pulled.id).map_err(|e| e.into_runtime("PullImage"))
}

/// Logs how far a pull is, from time to time.
fn teller(image: String) -> ProgressSink {
    let last = Mutex::new(Instant::now());
    Arc::new(move |progress| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= PERIOD {
            *last = Instant::now();
            tracing::info!(image, progress = shown(progress), "Pulling an image");
        }
    })
}

/// `12 of 345 MB (3 %)`.
fn shown(progress: Progress) -> String {
    const MB: u64 = 1_000_000;
    let percent = progress.done_bytes.saturating_mul(100).checked_div(progress.total_bytes).unwrap_or(0);
    format!("{} of {} MB ({percent} %)", progress.done_bytes / MB, progress.total_bytes / MB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_pull_is() {
        let at = |done_bytes, total_bytes| shown(Progress { done_bytes, total_bytes });
        assert_eq!(at(12_400_000, 345_000_000), "12 of 345 MB (3 %)");
        assert_eq!(at(0, 0), "0 of 0 MB (0 %)");
    }
}
