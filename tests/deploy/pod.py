"""Run a container of a pod without Kubernetes: its arguments, variables, user, mounts, and nothing that it could not see there.

The process is alone in its namespaces of mounts, processes and names, as the first of its processes, under the pod's numbers of
user and group, without capabilities. Its root holds this machine's programs, read-only, in the place of the image, and the
pod's volumes at their paths. What is missing is Kubernetes itself: the network policy, the limits, the scheduler.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.deploy import needed
from tests.deploy.manifests import Manifest, Pod
from tests.deploy.volumes import environment, fill

__all__ = ["Node"]

IMAGE = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "PYTHONUNBUFFERED": "1"}
"""The variables of the image."""
ENTRYPOINT = ["synicix-run"]
_HOST = ("/usr", "/etc")
_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
_DEVICES = ("null", "zero", "random", "urandom")


class Node:
    """A machine that pods run on, with the disks behind their claims.

    Parameters
    ----------
    folder : Path
        Where its disks are.
    secrets : mapping
        ``{name: {key: text}}``.
    image : mapping
        Further variables of the image, and what they name as paths is in the image.
    """

    def __init__(
        self,
        folder: Path,
        secrets: Mapping[str, Mapping[str, str]],
        image: Mapping[str, str],
        files: Sequence[str] = (),
    ) -> None:
        needed.root()
        for name in ("unshare", "setpriv", "chroot"):
            needed.program(name)
        self._folder = folder
        self._secrets = secrets
        self._image = {**IMAGE, **image}
        self._files = files
        self._count = 0

    def claim(self, name: str) -> Path:
        """Return the directory behind a claim, made when it is first asked for."""
        place = self._folder / "claims" / name
        if not place.exists():
            place.mkdir(parents=True)
            _give(place)
        return place

    def start(
        self, pod: Pod, documents: Sequence[Manifest], command: Sequence[str] = (), **options: Any
    ) -> subprocess.Popen[str]:
        """Start the one container of a pod.

        Parameters
        ----------
        pod : Pod
            What to run.
        documents
            What it was built with.
        command
            Run this instead, as ``kubectl exec`` does.
        **options
            For `subprocess.Popen`.
        """
        self._count += 1
        place = self._folder / f"pod-{self._count}"
        fill(place, pod, documents, self._secrets)
        [container] = pod.containers
        variables = {**self._image, **environment(container, self._secrets)}
        words = [*command] or [*container.get("command", ENTRYPOINT), *container.get("args", [])]
        script = "\n".join(["set -eu", *self._mounts(pod, container, place), _enter(pod, container, variables, words)])
        hostname = f"{pod.owner['metadata']['name']}-0"
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]
        return subprocess.Popen(
            [*unshare, "sh", "-c", f"hostname {hostname}\n{script}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": os.environ["PATH"]},
            **options,
        )

    def run(
        self, pod: Pod, documents: Sequence[Manifest], command: Sequence[str] = (), text: str = ""
    ) -> tuple[int, str]:
        """Run the container to its end, with `text` as its standard input; return its exit code and what it printed."""
        process = self.start(pod, documents, command, stdin=subprocess.PIPE)
        output, _ = process.communicate(text, timeout=180)
        return process.returncode, output

    def _mounts(self, pod: Pod, container: Mapping[str, Any], place: Path) -> list[str]:
        root = shlex.quote(str(self._folder / f"root-{self._count}"))
        lines = [f"R={root}", "mount --make-rprivate /", 'mkdir "$R"', 'mount -t tmpfs -o mode=755 image "$R"']
        checkout = Path(__file__).parents[2]
        images = {checkout, *map(Path, [*_HOST, sys.prefix, sys.base_prefix, *self._files])}
        images -= {path for path in images if any(other in path.parents for other in images)}
        # A checkout below /tmp would be hidden by the volume there.
        hidden = {
            path for path in images for mount in container["volumeMounts"] if path.is_relative_to(mount["mountPath"])
        }
        for path in sorted(images - hidden):
            lines += _image_part(path)
        lines += [f'ln -s "{Path(link).readlink()}" "$R{link}"' for link in _LINKS if Path(link).is_symlink()]
        passwd = place / "passwd"
        passwd.write_text(f"root:x:0:0::/:/bin/sh\nsynicix:x:{_user(pod)}:{_group(pod)}::/tmp:/bin/sh\n")
        lines += [
            f'mount --bind "{passwd}" "$R/etc/passwd"',
            'mkdir "$R/proc" "$R/dev"',
            'mount -t proc proc "$R/proc"',
        ]
        for device in _DEVICES:
            lines += [f'touch "$R/dev/{device}"', f'mount --bind /dev/{device} "$R/dev/{device}"']
        # What a container's runtime makes, too: names for the three streams, which its user may open.
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            lines += [f'ln -s /proc/self/fd/{number} "$R/dev/{name}"', f"chown {_user(pod)} /proc/self/fd/{number}"]
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        for mount in sorted(container["volumeMounts"], key=lambda mount: str(mount["mountPath"])):
            volume = volumes[mount["name"]]
            read_only = bool(mount.get("readOnly")) or "configMap" in volume or "secret" in volume
            source = place / volume["name"]
            if "persistentVolumeClaim" in volume:
                source = self.claim(volume["persistentVolumeClaim"]["claimName"])
                read_only |= volume["persistentVolumeClaim"].get("readOnly", False)
            else:
                _give(source, _group(pod), "emptyDir" in volume)
            source = (source / mount.get("subPath", "")).resolve()
            target = f'"$R{mount["mountPath"]}"'
            lines.append(f"mkdir -p {target}" if source.is_dir() else f"touch {target}")
            lines.append(f'mount --bind "{source}" {target}')
            if read_only:
                lines.append(f"mount -o remount,bind,ro {target}")
        for path in sorted(hidden):
            lines += _image_part(path)
        return [*lines, 'mount -o remount,ro "$R"']


def _image_part(path: Path) -> list[str]:
    return [f'mkdir -p "$R{path}"', f'mount --rbind "{path}" "$R{path}"', f'mount -o remount,bind,ro "$R{path}"']


def _enter(pod: Pod, container: Mapping[str, Any], variables: Mapping[str, str], words: Sequence[str]) -> str:
    context = pod.spec["securityContext"]
    groups = sorted({context["fsGroup"], *context.get("supplementalGroups", [])})
    drop = ["setpriv", f"--reuid={_user(pod)}", f"--regid={_group(pod)}", f"--groups={','.join(map(str, groups))}"]
    drop += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    inside = [
        "env",
        "-i",
        f"--chdir={container['workingDir']}",
        *(f"{name}={value}" for name, value in variables.items()),
    ]
    return f'exec chroot "$R" {shlex.join([*drop, *inside, *words])}'


def _user(pod: Pod) -> int:
    return int(pod.spec["securityContext"]["runAsUser"])


def _group(pod: Pod) -> int:
    return int(pod.spec["securityContext"]["runAsGroup"])


def _give(place: Path, group: int = 10001, everybody: bool = False) -> None:
    """Give a volume to the pod's group, as Kubernetes does for fsGroup."""
    os.chown(place, 0, group)
    place.chmod(0o2777 if everybody else 0o2770)
    for path in place.rglob("*"):
        os.chown(path, 0, group, follow_symlinks=False)
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o2755)
