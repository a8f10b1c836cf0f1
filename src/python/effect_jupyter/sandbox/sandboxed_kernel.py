"""Starts an IPython kernel in a sandbox; `launcher.py` runs it there.

Usage: sandboxed_kernel.py OWN_DIR LIMITS [COMMAND ...], where LIMITS is a JSON object of limits by their name in the
module `resource`. With a COMMAND it only sets the limits and the filter of system calls before it runs that. The
COMMAND is this program again, in an environment with which Python may run other code first.

The environment variable EFFECT_JUPYTER_INSIDE is a JSON object: {"variables": further variables of that environment,
"writable": paths that may be written}. It is removed.

Standard output is a socket that holds one message: the content of the connection file, and the listening sockets of
the kernel's channels. In the sandbox such sockets cannot be created.
"""

import os
import sys

# The folder that contains only this package, instead of the folder of this file.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[: not getattr(sys.flags, "safe_path", sys.flags.isolated)] = [ROOT]
sys.dont_write_bytecode = True

import array
import ctypes
import errno
import json
import resource
import socket
import stat
import struct
import time

from effect_jupyter.system import PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, prctl

SECCOMP_MODE_FILTER = 2
# Instructions of a filter: (operation, instructions to skip if true, if false, value).
LOAD, EQUALS, MASK, GIVE = 0x20, 0x15, 0x54, 0x06
ALLOW = (GIVE, 0, 0, 0x7FFF0000)
REFUSE = (GIVE, 0, 0, 0x00050000 | errno.EPERM)
UNKNOWN = (GIVE, 0, 0, 0x00050000 | errno.ENOSYS)
# The bit of O_TMPFILE that no other flag has.
UNNAMED = 0o20000000

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
WRITE_FILE, REFER = 1 << 1, 1 << 13
MAP_SHARED_ANONYMOUS = 0x01 | 0x20

# The relays to the proxies, and maximum seconds until they listen; srt has the same.
RELAYS, RELAYS_TIMEOUT = 2, 0.3
CHANNELS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


def limit(limits):
    for name, value in limits.items():
        number = getattr(resource, name)
        # The soft limit of CPU time raises a signal, the hard one kills the process.
        hard = value + 1 if name == "RLIMIT_CPU" else value
        resource.setrlimit(number, (value, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load(offset):
    return (LOAD, 0, 0, offset)


def on(value, then):
    return [(EQUALS, 0, len(then), value), *then]


def forbid_unisolated_calls():
    """Denies system calls with EPERM that srt's filter allows and namespaces do not isolate.

    These are sockets of other families than the internet and netlink; `socketpair(AF_UNIX, kind)` unless the kind is
    connected, because a datagram socket of a pair can send to any address; keys of the system, which all processes of a
    session share; and setting the bits of a file with which other users run it as this user.
    """
    # The last two map calls to the argument with the mode: calls that change files, and calls that create them.
    architecture, sock, pair, keys, changes, makes = {
        "x86_64": (0xC000003E, 41, 53, (248, 249, 250), {90: 1, 91: 1, 268: 2, 133: 1, 259: 2, 85: 1}, {2: 2, 257: 3}),
        "aarch64": (0xC00000B7, 198, 199, (217, 218, 219), {52: 1, 53: 2, 33: 2}, {56: 3}),
    }[os.uname().machine]
    # The mode of the second is in memory, which a filter cannot read; programs handle this as on an old system.
    fchmodat2, openat2 = 452, 437

    def on_any(values, then):
        return [line for value in values for line in on(value, then)]

    families = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
    connected = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
    kinds = [load(24), (MASK, 0, 0, 0xF), *on_any(connected, [ALLOW]), REFUSE]

    def by_mode(argument):
        return [load(16 + 8 * argument), (MASK, 0, 0, stat.S_ISUID | stat.S_ISGID), *on(0, [ALLOW]), REFUSE]

    def if_made(argument):
        # Otherwise the argument is not a mode.
        return [load(8 + 8 * argument), (MASK, 0, 0, os.O_CREAT | UNNAMED), *on(0, [ALLOW]), *by_mode(argument)]

    numbers = [
        load(0),
        *on_any(keys, [REFUSE]),
        *on(sock, [load(16), *on_any(families, [ALLOW]), REFUSE]),
        *on(pair, [load(16), *on(socket.AF_UNIX, kinds), ALLOW]),
        *(line for number, argument in {**changes, fchmodat2: 2}.items() for line in on(number, by_mode(argument))),
        *(line for number, argument in makes.items() for line in on(number, if_made(argument))),
        *on(openat2, [UNKNOWN]),
        ALLOW,
    ]
    # srt's filter kills processes of another architecture.
    install([load(4), *on(architecture, numbers), ALLOW])


def forbid_uncounted_memory():
    """Denies files in memory, shared memory and message queues, which belong to no process and count for no limit.

    The same holds for anonymous shared memory, which stays when it is unmapped. `multiprocessing` and others use
    /dev/shm, which has a size.
    """
    mmap, *numbers = {"x86_64": (9, 319, 29, 68), "aarch64": (222, 279, 194, 186)}[os.uname().machine]
    memfd_secret = 447
    refused = [line for number in (*numbers, memfd_secret) for line in on(number, [REFUSE])]
    flags = [load(40), (MASK, 0, 0, MAP_SHARED_ANONYMOUS), *on(MAP_SHARED_ANONYMOUS, [REFUSE]), ALLOW]
    install([load(0), *refused, *on(mmap, flags), ALLOW])


def own_files(is_bounded):
    """Returns the paths that the sandbox needs. Without /dev/zero: its shared mappings are memory without a limit."""
    devices = [entry for entry in os.scandir("/dev") if not entry.is_symlink()]
    return ["/proc", *(entry.path for entry in devices if not (is_bounded and entry.name == "zero"))]


def restrict_writing(writable):
    """Allows to open for writing only files below these paths.

    Mounts ensure this for files, but not for pipes and devices, which can be written through a read-only mount. Without
    Landlock, or with a version that does not allow moving files between folders, this is not restricted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION) < 2:
        return
    handled = struct.pack("Q", WRITE_FILE | REFER)
    rules = checked(libc.syscall(LANDLOCK_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0))
    for path in writable:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # a path that does not exist is not writable
        access = WRITE_FILE | REFER if os.path.isdir(path) else WRITE_FILE
        rule = struct.pack("=Qi", access, place)
        checked(libc.syscall(LANDLOCK_ADD_RULE, rules, LANDLOCK_RULE_PATH_BENEATH, rule, 0))
        os.close(place)
    checked(prctl(PR_SET_NO_NEW_PRIVS, 1))
    checked(libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0))
    os.close(rules)


def checked(result):
    if result < 0:
        sys.exit(f"Landlock was refused: {os.strerror(ctypes.get_errno())}")
    return result


def install(program):
    """Installs a filter of system calls, in addition to existing ones."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    pointer = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, pointer) != 0:
        sys.exit(f"The system call filter was refused: {os.strerror(ctypes.get_errno())}")


def receive():
    """Receives the content of the connection file, and the listening sockets by address."""
    with socket.socket(fileno=1) as gift:
        room = socket.CMSG_SPACE((len(CHANNELS) + 1) * array.array("i").itemsize)
        message, ancillary, _, _ = gift.recvmsg(65536, room)
    null = os.open(os.devnull, os.O_WRONLY)
    if null != 1:
        os.dup2(null, 1)
        os.close(null)
    os.set_inheritable(1, True)
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    connection = json.loads(message)
    addresses = [f"ipc://{connection['ip']}-{connection[channel]}" for channel in CHANNELS]
    for own in descriptors[len(CHANNELS) :]:
        os.environ["EFFECT_JUPYTER_LISTENER"] = str(own)
    return connection, dict(zip(addresses, descriptors))


def write_connection_file(connection, own_dir, is_bounded):
    """Writes the connection file to memory of this process, and returns its path."""
    if is_bounded:
        path = os.path.join(own_dir, "connection.json")
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.unlink(path)
    else:
        file = os.memfd_create("connection")
    os.write(file, json.dumps(connection).encode())
    return f"/proc/self/fd/{file}"


def use_own_dir(own_dir):
    for name, folder in (
        ("IPYTHONDIR", "ipython"),
        ("JUPYTER_RUNTIME_DIR", "jupyter"),
        ("JUPYTER_DATA_DIR", "jupyter"),
        ("JUPYTER_CONFIG_DIR", "jupyter"),
        ("MPLCONFIGDIR", "matplotlib"),
        ("XDG_CACHE_HOME", "cache"),
        ("TMPDIR", "tmp"),
    ):
        path = os.path.join(own_dir, folder)
        os.makedirs(path, exist_ok=True)
        os.environ[name] = path
    home = os.environ.get("HOME", "")
    if home.startswith(own_dir):
        os.makedirs(home, exist_ok=True)


def keep_secret(own_dir):
    """Replaces the command by which srt passes the proxy's secret to git as an argument, which all users can read."""
    before, found, rest = os.environ.get("GIT_SSH_COMMAND", "").partition(",proxyauth=")
    secret, quote, after = rest.partition("'")
    if found and quote:
        path = os.path.join(own_dir, "proxy-authorization")
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(secret)
        os.environ["GIT_SSH_COMMAND"] = f"{before},proxyauthfile={path}'{after}"


def report_pid(own_dir):
    """Reports the pid of the kernel when the sandbox is complete."""
    started = os.path.join(own_dir, "started")
    with open(f"{started}.part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{started}.part", started)


def wait_for_network():
    """Waits until the relays to the proxies listen, as srt does before it starts a command; not for ever, as one may end."""
    deadline = time.monotonic() + RELAYS_TIMEOUT
    while listening() < RELAYS and time.monotonic() < deadline:
        time.sleep(0.001)


def listening():
    """Returns the number of TCP sockets of the sandbox, in which nothing else has run; as many as needed if unknown."""
    count = 0
    for path in ("/proc/net/sockstat", "/proc/net/sockstat6"):
        try:
            with open(path) as file:
                lines = [line.split() for line in file]
        except OSError:
            return RELAYS
        count += sum(int(line[2]) for line in lines if line[:2] in (["TCP:", "inuse"], ["TCP6:", "inuse"]))
    return count


def adopt(listeners):
    """Makes ZeroMQ listen on the existing sockets."""
    import zmq

    bind = zmq.Socket.bind

    def bind_or_adopt(self, address):
        descriptor = listeners.pop(address, None)
        if descriptor is not None:
            self.setsockopt(zmq.USE_FD, descriptor)
        return bind(self, address)

    zmq.Socket.bind = bind_or_adopt  # pyright: ignore[reportAttributeAccessIssue]


def main():
    own_dir, limits, *command = sys.argv[1:]
    is_linux = sys.platform != "darwin"
    is_bounded = "RLIMIT_DATA" in json.loads(limits)
    inside = json.loads(os.environ.pop("EFFECT_JUPYTER_INSIDE", "null"))
    variables = {} if inside is None else inside["variables"]
    if is_linux:
        # Only once.
        if inside is not None:
            restrict_writing([*inside["writable"], *own_files(is_bounded)])
            if is_bounded:
                forbid_uncounted_memory()
        forbid_unisolated_calls()
    limit(json.loads(limits))
    if command:
        # Python may run code of the user before this program.
        wait_for_network()
        os.execve(command[0], command, {**os.environ, **variables})
    if is_linux:
        # Its own process group, which an interrupt reaches as a whole.
        os.setsid()
        connection, listeners = receive()
        connection_file = write_connection_file(connection, own_dir, is_bounded)
    else:
        # The counterpart of `macos.py`.
        connection_file, listeners = os.path.join(own_dir, "connection.json"), {}
    use_own_dir(own_dir)
    keep_secret(own_dir)
    report_pid(own_dir)
    # The pid in the namespace of the sandbox.
    os.environ["JPY_PARENT_PID"] = str(os.getppid())
    sys.argv[1:] = [connection_file]
    adopt(listeners)
    from effect_jupyter.kernel import connection as kernel_connection
    from effect_jupyter.kernel import load_application

    kernel_connection.unused += listeners.values()

    application = load_application()
    wait_for_network()
    application.launch_instance(connection_file=connection_file)


main()
