"""The two streams of a fleet on the servers: how they are made, and who leads them."""

from __future__ import annotations

from sidecar.core.errors import brief

from .nats_client import TIMEOUT, Bus, Unreachable

FIXED = (
    "subjects", "republish", "discard_new_per_subject", "max_msgs_per_subject", "allow_direct",
)  # fmt: skip
"""What a stream's configuration must have as it is made here."""


async def make_streams(bus: Bus) -> None:
    """Make the fleet's streams where there are none: on three servers of a cluster.

    Raises `Unreachable`, and ValueError where a stream is there that is not made like this.
    """
    replicas = 3 if bus.client._server_info.get("cluster") else 1  # not told otherwise
    from nats.errors import Error
    from nats.js import api
    from nats.js.errors import NotFoundError

    subjects = bus.subjects
    logged = api.StreamConfig(
        name=subjects.log_stream,
        subjects=[subjects.put("*")],
        discard=api.DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        num_replicas=replicas,
        republish=api.RePublish(src=subjects.put("*"), dest=subjects.republished),
    )
    data = api.StreamConfig(
        name=subjects.data_stream,
        subjects=subjects.data,
        max_msgs_per_subject=1,
        allow_direct=True,
        num_replicas=replicas,
    )
    context = bus.client.jetstream(timeout=TIMEOUT)
    try:
        for config in (logged, data):
            try:
                found = (await context.stream_info(str(config.name))).config
            except NotFoundError:
                await context.add_stream(config)
                continue
            for name in FIXED:
                if getattr(found, name) != getattr(config, name):
                    raise ValueError(
                        f"stream {config.name} is there, and its {name} is not "
                        f"{getattr(config, name)}: it was not made by `fleet publish`"
                    )
    except (Error, OSError, TimeoutError) as error:
        raise Unreachable(f"the streams can't be made: {brief(error)}") from None


async def require_leader(bus: Bus) -> None:
    """Raise `Unreachable` where the server that answers knows no leader of the log.

    Then it is cut off from the others, and what it holds may be old.  A log that is not there at
    all, or on one server only, has no leader to ask for.
    """
    from nats.errors import Error
    from nats.js.errors import NotFoundError

    try:
        context = bus.client.jetstream(timeout=TIMEOUT)
        cluster = (await context.stream_info(bus.subjects.log_stream)).cluster
    except NotFoundError:
        return
    except (Error, OSError, TimeoutError) as error:
        raise Unreachable(f"the log's leader is not known: {brief(error)}") from None
    if cluster is not None and cluster.name and not cluster.leader:
        raise Unreachable("the server that answers is cut off from the others")
