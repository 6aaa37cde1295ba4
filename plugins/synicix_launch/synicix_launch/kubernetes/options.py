"""What can be said about a Job on Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synicix_launch.kubernetes.names import checked_image, label
from synicix_launch.options import option
from synicix_launch.values import at_least, duration, matches

__all__ = ["KubernetesOptions"]


@dataclass(frozen=True)
class KubernetesOptions:
    """Options of the launcher for Kubernetes; what is None is as the template says."""

    image: str | None = option(
        None,
        "The image that workers run, with a tag or digest; without GPUs that for the CPU.",
        metavar="IMAGE",
        check=checked_image,
    )
    gpus: int | None = option(None, "GPUs of each worker; 0 for the CPU.", check=at_least(0))
    cpus: int | None = option(None, "CPU cores of each worker.", check=at_least(1))
    memory: str | None = option(
        None,
        "Memory of each worker.",
        metavar="SIZE",
        check=matches(r"[1-9]\d*(Mi|Gi|Ti|M|G|T)", "a number of Mi, Gi or Ti, such as 16Gi"),
    )
    gpu_memory: int | None = option(
        None,
        "Only nodes whose GPUs have so many MiB or more by the label nvidia.com/gpu.memory; a card of 24 GB has 23028 or more.",
        metavar="MIB",
        check=at_least(1),
    )
    compute_capability: str | None = option(
        None,
        "Only nodes with GPUs of this compute capability or above, such as 7.5.",
        metavar="X.Y",
        check=matches(r"[1-9]\d?\.\d", "a compute capability such as 7.5"),
    )
    time_limit: str | None = option(
        None,
        "End the Job after this time: workers checkpoint and give their tasks back.",
        metavar="TIME",
        check=duration,
    )
    namespace: str = option(
        "synicix",
        "The namespace, with the claims and the Secret in it.",
        metavar="NAME",
        check=label(63),
    )
    context: str | None = option(
        None, "The context of kubectl's configuration.", metavar="NAME", check=matches(r"\S+", "a name without spaces")
    )
    queue: str | None = option(None, "The LocalQueue of Kueue that admits the Job.", metavar="NAME", check=label(63))
    # 63 for a pod's name, less the digest, two numbers and what lies between them.
    name: str = option("synicix", "What the Job's name begins with.", metavar="NAME", check=label(40))
    database_host: str | None = option(
        None,
        "How pods reach the database, where that is another name than the project's.",
        metavar="HOST[:PORT]",
        check=matches(
            r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?",
            "the name or IPv4 address of a host, perhaps with :port",
        ),
    )
    plugins: tuple[str, ...] = option(
        (), "Distributions of plugins that the image holds beside those of Synicix itself."
    )
    template: Path | None = option(None, "A Job of your own to start from, instead of deploy/kubernetes/base/job.yaml.")  # noqa: RUF009 - a field
