//! `/checkpoint/{namespace}/{pod}/{container}`: a container's state as a file, by the runtime.

use http::{Method, Response, StatusCode};
use jiff::Zoned;
use rubelet_proto::cri;

use super::{Question, segments};
use crate::View;
use crate::query::Query;
use crate::respond::{self, Reply};
use crate::running;

/// Has a checkpoint written, and tells where it is.
pub(super) async fn answer(view: &dyn View, question: &Question) -> Response<Reply> {
    let Some([namespace, pod, container]) = segments(question.uri().path()) else {
        return respond::no_route();
    };
    if question.method() != Method::POST {
        return respond::method_not_allowed("POST");
    }
    if !respond::takes_json(question.headers()) {
        return respond::not_acceptable();
    }
    let Some(known) = view.pod(&namespace, &pod) else {
        return respond::text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    if !super::container_logs::has_container(&known, &container) {
        return respond::text(StatusCode::NOT_FOUND, format!("container {container} does not exist"));
    }
    let query = Query::parse(question.uri().query().unwrap_or_default());
    // kubelet 1.36: the last one counts, and what is no number is not found.
    let timeout = match query.values("timeout").last().map(str::parse::<i64>) {
        None => 0,
        Some(Ok(seconds)) => seconds,
        Some(Err(_)) => return respond::text(StatusCode::NOT_FOUND, "cannot parse value of timeout parameter"),
    };
    match write(view, &namespace, &pod, &container, timeout).await {
        Ok(location) => {
            let body = respond::whole(format!(r#"{{"items":["{location}"]}}"#));
            respond::answer(StatusCode::OK, respond::JSON, body)
        }
        Err(why) => respond::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("checkpointing of {namespace}/{pod}/{container} failed ({why})"),
        ),
    }
}

async fn write(view: &dyn View, namespace: &str, pod: &str, container: &str, timeout: i64) -> Result<String, String> {
    let runtime = view.runtime();
    let running = running::running_pod(&*runtime, namespace, pod).await.map_err(|error| error.to_string())?;
    let id = running.as_ref().and_then(|pod| pod.container(container)).map(|container| container.id.clone());
    let id = id.ok_or_else(|| format!("container {container} not found"))?;
    let at = rfc3339(&Zoned::now());
    let file = format!("checkpoint-{pod}_{namespace}-{container}-{at}.tar");
    let location = view.premises().checkpoints_dir.join(file).display().to_string();
    let request =
        cri::CheckpointContainerRequest { container_id: id.as_str().to_owned(), location: location.clone(), timeout };
    runtime.checkpoint_container(request).await.map_err(|error| error.to_string())?;
    Ok(location)
}

/// As Go's `time.RFC3339`: UTC is `Z`.
fn rfc3339(at: &Zoned) -> String {
    let zone = if at.offset().is_zero() { "Z".to_owned() } else { at.strftime("%:z").to_string() };
    format!("{}{zone}", at.strftime("%Y-%m-%dT%H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let at: Zoned = "2026-01-02T03:04:05Z[UTC]".parse().unwrap();
        assert_eq!(rfc3339(&at), "2026-01-02T03:04:05Z");
        let at: Zoned = "2026-01-02T03:04:05+05:30[+05:30]".parse().unwrap();
        assert_eq!(rfc3339(&at), "2026-01-02T03:04:05+05:30");
    }
}
