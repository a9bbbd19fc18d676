//! Spans on their way to the collector: in batches, and lost when nobody takes them.

use std::time::Duration;

use http::uri::PathAndQuery;
use rubelet_proto::otlp::any_value::Value;
use rubelet_proto::otlp::{
    AnyValue, ExportTraceServiceRequest, ExportTraceServiceResponse, InstrumentationScope, KeyValue, Resource,
    ResourceSpans, ScopeSpans, Span,
};
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::TraceSettings;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// OpenTelemetry's defaults: spans in one message, and how long the first of them waits for others.
const BATCH_MAX: usize = 512;
const BATCH_EVERY: Duration = Duration::from_secs(5);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends what comes until nothing more can come.
pub(super) async fn run(settings: TraceSettings, mut spans: mpsc::Receiver<Span>) {
    let channel = match Endpoint::from_shared(format!("http://{}", settings.endpoint)) {
        Ok(endpoint) => endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect_lazy(),
        Err(error) => {
            tracing::error!(endpoint = settings.endpoint, err = %error, "Traces have nowhere to go");
            return;
        }
    };
    let mut batch = Vec::new();
    while spans.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let until = tokio::time::Instant::now() + BATCH_EVERY;
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            match tokio::time::timeout_at(until, spans.recv_many(&mut batch, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let count = batch.len();
        let message = message(&settings, std::mem::take(&mut batch));
        if let Err(error) = send(channel.clone(), message).await {
            let (endpoint, err) = (settings.endpoint.as_str(), error.to_string());
            tracing::warn!(endpoint, err, count, "Traces could not be sent and are lost");
        }
    }
}

async fn send(channel: Channel, message: ExportTraceServiceRequest) -> Result<(), tonic::Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<_, ExportTraceServiceResponse>::default();
    grpc.unary(tonic::Request::new(message), PathAndQuery::from_static(EXPORT), codec).await.map(drop)
}

/// kubelet 1.36: the service is `kubelet`, the host the node.
fn message(settings: &TraceSettings, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let text = |key: &str, text: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) }),
    };
    let attributes = vec![text("service.name", "kubelet"), text("host.name", &settings.node_name)];
    let scope = InstrumentationScope { name: "rubelet".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        }],
    }
}
