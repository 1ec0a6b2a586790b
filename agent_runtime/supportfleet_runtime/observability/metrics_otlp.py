"""Readings of the metrics as OTLP (protobuf). Imported only where metrics are sent that way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from supportfleet_runtime.observability.readings import Count, Level, Reading

SCOPE: Final = "supportfleet_runtime"
DELTA: Final = pb.AGGREGATION_TEMPORALITY_DELTA


def metric(reading: Reading, begun: int, ended: int) -> pb.Metric:
    """A reading of the time between two moments (in nanoseconds)."""
    about: dict[str, Any] = {
        "attributes": _attributes(dict(reading.labels)),
        "start_time_unix_nano": begun,
        "time_unix_nano": ended,
    }
    if isinstance(reading, Level):
        point = pb.NumberDataPoint(as_double=reading.value, **about)
        return pb.Metric(name=reading.name, gauge=pb.Gauge(data_points=[point]))
    if isinstance(reading, Count):
        point = pb.NumberDataPoint(as_double=reading.value, **about)
        total = pb.Sum(data_points=[point], aggregation_temporality=DELTA, is_monotonic=True)
        return pb.Metric(name=reading.name, sum=total)
    spread = pb.HistogramDataPoint(
        count=reading.count,
        sum=reading.sum,
        explicit_bounds=reading.bounds,
        bucket_counts=reading.counts,
        **about,
    )
    return pb.Metric(name=reading.name, histogram=pb.Histogram(data_points=[spread], aggregation_temporality=DELTA))


def encode(batches: Sequence[Sequence[pb.Metric]], resource: Mapping[str, str]) -> bytes:
    """Batches of metrics as the body of one request."""
    scope = pb.ScopeMetrics(scope=InstrumentationScope(name=SCOPE), metrics=[one for batch in batches for one in batch])
    whose = Resource(attributes=_attributes(resource))
    request = ExportMetricsServiceRequest(resource_metrics=[pb.ResourceMetrics(resource=whose, scope_metrics=[scope])])
    return bytes(request.SerializeToString())


def _attributes(values: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in values.items()]
