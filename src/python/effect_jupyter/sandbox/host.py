"""The gateway's side of the sandbox: the helper process that runs srt, and the folder and the rules of each kernel.
Standard library only.

`settings` comes from the program, and all its paths are absolute: {"rules": see `complete`, "user": {"uid",
"gid"} or null, "helper": the command of the helper, "tools": paths of programs by name, "path": PATH
without folders that a kernel may write to, "needed": paths that every kernel reads, "protected": paths that
no kernel may write to}.
"""

import hmac
import json
import marshal
import os
import shlex
import site
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from effect_jupyter.sandbox import bubblewrap, git, macos, mounts, names
from effect_jupyter.sandbox.bubblewrap import is_under
from effect_jupyter.sandbox.placeholders import Placeholders, is_own, registries
from effect_jupyter.system import remove_tree

HERE = os.path.dirname(os.path.abspath(__file__))
# The folder that contains only this package.
ROOT = os.path.dirname(os.path.dirname(HERE))
# Paths that Python reads besides its own files, and those that any program needs.
SYSTEM = (
    "/usr /bin /sbin /lib /lib32 /lib64 /opt /etc/alternatives /etc/ca-certificates /etc/fonts /etc/group"
    " /etc/hosts /etc/ld.so.cache /etc/ld.so.conf /etc/ld.so.conf.d /etc/locale.alias /etc/localtime"
    " /etc/mime.types /etc/nsswitch.conf /etc/os-release /etc/passwd /etc/pki /etc/resolv.conf /etc/ssl"
    " /etc/timezone /sys/devices/system/cpu"
).split()


def python_files():
    """Returns the folders of the interpreter and its packages, including those shared with another environment."""
    packages = [folder for folder in sys.path if os.path.basename(folder) in ("site-packages", "dist-packages")]
    places = (sys.prefix, sys.base_prefix, sys.executable, *filter(os.path.isdir, packages))
    return sorted({*map(os.path.realpath, places), sys.prefix, ROOT})


def remove_from_module_path(writable):
    """Removes writable folders from the module search path, such as a project that is installed in place."""
    safe = python_files()
    writable = [os.path.realpath(folder) for folder in writable]
    sys.path[:] = [
        folder
        for folder in sys.path
        if any(is_under(os.path.realpath(folder), place) for place in safe)
        or not any(is_under(os.path.realpath(folder), place) for place in writable)
    ]


def limits(given):
    """Returns limits by their names in the module `resource`. Mapped memory that is never written does not count."""
    names = {
        "memory": "RLIMIT_DATA",
        "processes": "RLIMIT_NPROC",
        "fileSize": "RLIMIT_FSIZE",
        "cpuTime": "RLIMIT_CPU",
    }
    return {names[name]: value for name, value in given.items()}


class Identity:
    """The user that sandboxed processes run as, and the paths that it needs."""

    def __init__(self, settings, workspace):
        self.user = settings["user"]
        seen = [*python_files(), *settings["needed"], settings["helper"][0], workspace]
        # Determined once: a kernel must not be able to redirect a path of a later one.
        self.paths = sorted({os.path.realpath(path) for path in seen if os.path.exists(path)})

    def command(self, command):
        """Returns the command that starts another one as the user."""
        if self.user is None:
            return command
        identity = json.dumps({**self.user, "paths": self.paths})
        return [sys.executable, "-I", "-S", os.path.join(HERE, "user.py"), identity, *command]


class Helper:
    """The process that converts commands and filters the network traffic for all kernels of a gateway."""

    def __init__(self, command, *, path, folder, workspace, on_violation, on_end):
        self._pending = {}
        self._count = 0
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._on_violation = on_violation
        self._on_end = on_end
        self._ready = Future()
        self._process: Any = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # srt protects files in its working directory, and creates its sockets in TMPDIR.
            cwd=workspace,
            # No other variables: kernels would get a proxy or a preloaded library as well.
            env={"PATH": path, "HOME": folder, "TMPDIR": folder},
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def initialize(self, settings):
        self._send(settings)

    def wait_until_ready(self):
        """Raises an exception if the helper cannot convert commands."""
        self._ready.result(20)

    def wrap(self, kernel_id, command, rules):
        """Returns a future of the sandboxed command."""
        return self._ask({"wrap": kernel_id, "command": command, "rules": rules})

    def narrow(self, rules, permissions, workspace):
        """Returns a future of the rules that permissions result in."""
        return self._ask({"narrow": rules, "permissions": permissions, "workspace": workspace})

    def ended(self, kernel_id):
        """Returns a future that is done when the files that protected the workspace from this kernel are removed."""
        return self._ask({"ended": kernel_id})

    def _ask(self, question):
        answer = Future()
        # The future may be cancelled before the answer arrives.
        answer.set_running_or_notify_cancel()
        with self._lock:
            self._count += 1
            number = self._count
            self._pending[number] = answer
        self._send({"number": number, **question})
        return answer

    def _send(self, message):
        # Not the thread that reads answers: a helper whose output is blocked does not read its input either.
        with self._writing:
            try:
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()
            except OSError:
                pass  # the listener fails as well

    def _listen(self):
        try:
            for line in self._process.stdout:
                self._receive(json.loads(line))
        finally:
            was_ready = self._ready.done() and self._ready.exception() is None
            with self._lock:
                unanswered = [self._ready, *self._pending.values()]
            for answer in unanswered:
                if not answer.done():
                    answer.set_exception(RuntimeError("The sandbox helper ended"))
            if was_ready:
                self._on_end()

    def _receive(self, message):
        if "violation" in message:
            self._on_violation(message["kernel"], message["violation"])
            return
        with self._lock:
            answer = self._pending.pop(message["number"], None) if "number" in message else self._ready
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(RuntimeError(message["error"]))
        else:
            answer.set_result(message.get("result"))


class Sandbox:
    """Makes the folder, the rules and the command of each kernel."""

    def __init__(self, settings, runtime_dir, workspace, secret):
        self._settings = settings
        self._secret = secret
        self.rules = settings["rules"]
        self.identity = Identity(settings, workspace)
        self._planner = ThreadPoolExecutor(1)
        self._cleaner = ThreadPoolExecutor(1)
        self._remover = ThreadPoolExecutor(1)
        self._registry = os.path.dirname(runtime_dir)
        self._placeholders = Placeholders(self._registry)
        self._repositories = git.Repositories()
        self._holding = {}
        self._user = settings["user"]
        self._workspace = workspace
        self._runtime_dir = runtime_dir
        self.helper_dir = os.path.join(runtime_dir, "helper")
        self._places = os.path.join(runtime_dir, "places")
        self._helper: Any = None
        if self._user is not None:
            # The other user may enter it, and can read only its own folders.
            os.chmod(self._registry, 0o711)
            os.chmod(runtime_dir, 0o711)
        os.mkdir(self._places, 0o711)
        self._give(self.helper_dir)

    def start_helper(self, *, on_violation, on_end):
        tools = self._settings["tools"]
        self._helper = Helper(
            self.identity.command(self._settings["helper"]),
            path=self._settings["path"],
            folder=self.helper_dir,
            workspace=self._workspace,
            on_violation=on_violation,
            on_end=on_end,
        )
        self._helper.initialize(
            {
                "bwrapPath": tools.get("bwrap"),
                "socatPath": tools.get("socat"),
                "ripgrepPath": tools["rg"],
                "parentProxy": self.rules.get("parentProxy"),
                "denyNet": self.rules["denyNet"],
            }
        )

    def wait_for_helper(self):
        self._helper.wait_until_ready()

    def rules_of(self, request):
        """Returns the rules of a request; by default those of the gateway. Raises ValueError without the secret."""
        if request is None:
            return self.rules
        given = json.loads(request)
        if not hmac.compare_digest(given["secret"], self._secret):
            raise ValueError("the secret is wrong")
        return given["rules"]

    def narrow(self, permissions):
        """Returns a future of the rules for what a client asks for, which are at most those of the gateway.

        Raises ValueError for what is no object of JSON.
        """
        asked = json.loads(permissions)
        if not isinstance(asked, dict):
            raise ValueError("The permissions are no object")
        for paths in asked.values():
            if isinstance(paths, list):
                # The helper has another home.
                paths[:] = [os.path.expanduser(path) if isinstance(path, str) else path for path in paths]
        return self._helper.narrow(self.rules, asked, self._workspace)

    def own_dir(self, kernel_id):
        return os.path.join(self._places, kernel_id)

    def started(self, kernel_id):
        """Returns the pid of the kernel in its sandbox; None before it is known. Raises ValueError for another file."""
        try:
            # Code may have changed the file: it may be a pipe, a link, or without an end.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
            file = os.open(os.path.join(self.own_dir(kernel_id), "started"), flags)
        except FileNotFoundError:
            return None
        try:
            return int(os.read(file, 16))
        finally:
            os.close(file)

    def prepare(self, kernel_id, rules, env):
        """Creates the folder of a kernel, and returns a future of its sandboxed command.

        `env` is set in the sandbox, in addition to the environment of the command.
        """
        own_dir = self.own_dir(kernel_id)
        self._give(own_dir)
        start = [os.path.join(HERE, "sandboxed_kernel.py"), own_dir, json.dumps(limits(rules["limits"]))]
        command = [sys.executable, *start]
        if env:
            command = [sys.executable, "-I", "-S", *start, *command]
        return self._planner.submit(self._wrap, kernel_id, f"exec {shlex.join(command)}", rules)

    def _wrap(self, kernel_id, command, rules):
        own_dir = self.own_dir(kernel_id)
        writable = [folder for folder in rules["allowWrite"] if os.path.isdir(folder)]
        # Before the existing files are listed: from now on placeholders are not removed.
        self._placeholders.hold(writable)
        self._holding[kernel_id] = writable
        completed = self.complete(rules, own_dir)
        if macos.IS_HERE:
            completed["unixSockets"] = macos.sockets(self._runtime_dir, kernel_id)
            completed["allowWrite"] += completed["unixSockets"]
        try:
            return self._helper.wrap(kernel_id, command, completed).result(20)
        except RuntimeError as error:
            # srt has another limit, with an error about options that the user does not have.
            if "bwrap arguments" not in str(error):
                raise
            raise RuntimeError(mounts.too_many("more than 3000")) from None

    def orders(self, kernel_id, command, rules, env, sockets):
        """Returns the orders of `launcher.py`."""
        writable = [*rules["allowWrite"], self.own_dir(kernel_id)]
        orders = {
            "ownDir": self.own_dir(kernel_id),
            "user": self._user,
            "paths": self.identity.paths,
            "pidFile": self._pid_file(kernel_id),
            "sockets": sockets,
            "writable": writable,
            "inside": json.dumps({"variables": env, "writable": writable}),
        }
        if macos.IS_HERE:
            variables, words = macos.split(command)
            return marshal.dumps({**orders, "command": words, "environment": variables})
        bwrap, options, words = bubblewrap.split(command)
        options = bubblewrap.bounded(options, memory=rules["limits"].get("memory"), writable=writable)
        missing = dict(point for point in bubblewrap.mount_points(options) if not os.path.lexists(point[0]))
        made = self._placeholders.note(self._holding.get(kernel_id, ()), missing)
        orders["placeholders"] = [(path, missing[path]) for path in made]
        return marshal.dumps({**orders, "command": [bwrap], "options": options, "inner": bubblewrap.at_once(words)})

    def end(self, kernel_id):
        """Removes the folder of a kernel that has ended. Returns a future that is done then."""
        return self._cleaner.submit(self._end, kernel_id)

    def _end(self, kernel_id):
        if macos.IS_HERE:
            macos.end(self._pid_file(kernel_id))
        trash = f"{self.own_dir(kernel_id)}.trash"
        try:
            os.rename(self.own_dir(kernel_id), trash)
        except FileNotFoundError:
            pass
        # In the background: a kernel may have left many files.
        self._remover.submit(remove_tree, trash)
        # An abandoned start may still be in progress.
        self._planner.submit(self._release, kernel_id).result(20)
        self._helper.ended(kernel_id).result(20)

    def _release(self, kernel_id):
        self._placeholders.release(self._holding.pop(kernel_id, ()))

    def _pid_file(self, kernel_id):
        return os.path.join(self._runtime_dir, f"kernel-{kernel_id}.pid")

    def complete(self, rules, own_dir):
        """Returns the rules of one kernel: those of the user, and those that every kernel needs."""
        needed = [*python_files(), *self._settings["needed"], *(SYSTEM if rules["strict"] else [])]
        denied = [path for path in rules["denyRead"] if "*" not in path]
        hidden = [path for path in needed if any(is_under(path, folder) for folder in denied)]
        names.check([*rules["denyRead"], *rules["denyWrite"], *self._settings_of_tools(rules["allowWrite"])])
        return {
            "allowNet": rules["allowNet"],
            # Includes those of other gateways, even if they start later.
            "denyRead": [
                *rules["denyRead"],
                *registries(os.path.dirname(self._registry)),
                *filter(is_own, [self._settings["sharedGateways"]]),
            ],
            "allowRead": [*rules["allowRead"], *filter(os.path.exists, hidden), own_dir, self.helper_dir],
            "allowWrite": [*rules["allowWrite"], own_dir],
            "denyWrite": [
                *rules["denyWrite"],
                *([] if rules["allowGit"] else self._repositories.protected(rules["allowWrite"])),
                *self._settings_of_agents(rules["strict"]),
                *python_files(),
                *self._settings["protected"],
                site.getusersitepackages(),
                self.helper_dir,
            ],
        }

    def _settings_of_tools(self, folders):
        """Returns patterns of the files that srt protects in subfolders as well."""
        paths = [path for path in self._settings["protected"] if os.path.dirname(path) in folders]
        return [os.path.join(os.path.dirname(path), "**", os.path.basename(path)) for path in paths]

    def _settings_of_agents(self, strict):
        """Creates the folder: srt denies parts of it, or all of it if it does not exist.

        In a strict sandbox srt would fail to create those parts, because the folder is read-only there.
        """
        folder = os.path.join(self._workspace, ".claude")
        parts = ("agents", "commands", "settings.json", "settings.local.json")
        return [os.path.join(folder, part) for part in parts] if strict else [folder]

    def _give(self, folder):
        os.mkdir(folder, 0o700)
        if self._user is not None:
            os.chown(folder, self._user["uid"], self._user["gid"])
