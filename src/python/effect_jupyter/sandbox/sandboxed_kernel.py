"""Starts an IPython kernel inside a sandbox, where `launcher.py` has put it.

Usage: sandboxed_kernel.py OWN_DIR LIMITS [COMMAND ...], where LIMITS is a JSON object of limits by their name in the
module `resource`. With a COMMAND, which is this one again in an environment that may have Python run other code first,
it only sees to it that nothing comes before the limits and the filter of system calls.

The environment variable EFFECT_JUPYTER_INSIDE is a JSON object: {"variables": what that environment has more, "writable":
paths that may be written}. It is taken away.

Standard output is a socket that holds one message: the content of the connection file, and the listening sockets of
the kernel's channels. The sandbox lets nobody create such sockets.
"""

import os
import sys

# The folder that has nothing but our package, in place of the one of this file.
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

from effect_jupyter.system import PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, prctl

SECCOMP_MODE_FILTER = 2
# Lines of a filter: (operation, lines to skip if so, lines to skip if not, value).
LOAD, EQUALS, MASK, GIVE = 0x20, 0x15, 0x54, 0x06
ALLOW = (GIVE, 0, 0, 0x7FFF0000)
REFUSE = (GIVE, 0, 0, 0x00050000 | errno.EPERM)
UNKNOWN = (GIVE, 0, 0, 0x00050000 | errno.ENOSYS)
# The part of O_TMPFILE that is its own.
UNNAMED = 0o20000000

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
WRITE_FILE, REFER = 1 << 1, 1 << 13
MAP_SHARED_ANONYMOUS = 0x01 | 0x20

CHANNELS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


def limit(limits):
    for name, value in limits.items():
        number = getattr(resource, name)
        # Past the soft limit of CPU time comes a signal, past the hard one the end.
        hard = value + 1 if name == "RLIMIT_CPU" else value
        resource.setrlimit(number, (value, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load(offset):
    return (LOAD, 0, 0, offset)


def on(value, then):
    return [(EQUALS, 0, len(then), value), *then]


def forbid_what_leads_out():
    """Refuses with EPERM what srt's own filter leaves open and no namespace separates.

    That is every family of sockets but the internet's and the kernel's own; `socketpair(AF_UNIX, kind)` unless the
    kind is connected, because one of a pair of datagram sockets can send to any address; the kernel's keys, which all
    processes of a session share; and programs that whoever runs them becomes this user by.
    """
    # The last two are calls by the argument that is a mode, of those that change and of those that make files.
    architecture, sock, pair, keys, changes, makes = {
        "x86_64": (0xC000003E, 41, 53, (248, 249, 250), {90: 1, 91: 1, 268: 2, 133: 1, 259: 2, 85: 1}, {2: 2, 257: 3}),
        "aarch64": (0xC00000B7, 198, 199, (217, 218, 219), {52: 1, 53: 2, 33: 2}, {56: 3}),
    }[os.uname().machine]
    # The mode for the second is in memory, where no filter looks; programs take it for an old system.
    fchmodat2, openat2 = 452, 437

    def on_any(values, then):
        return [line for value in values for line in on(value, then)]

    families = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
    connected = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
    kinds = [load(24), (MASK, 0, 0, 0xF), *on_any(connected, [ALLOW]), REFUSE]

    def by_mode(argument):
        return [load(16 + 8 * argument), (MASK, 0, 0, stat.S_ISUID | stat.S_ISGID), *on(0, [ALLOW]), REFUSE]

    def if_made(argument):
        # Otherwise there is no mode, whatever the argument is.
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
    # srt's filter ends whoever uses another architecture.
    install([load(4), *on(architecture, numbers), ALLOW])


def forbid_memory_of_nobody():
    """Files in memory, shared memory and queues of messages are no process's: no limit counts them.

    Nor does one count shared memory without a file, which stays when it is no longer mapped: `multiprocessing` and others
    have theirs in /dev/shm, which has a size.
    """
    mmap, *numbers = {"x86_64": (9, 319, 29, 68), "aarch64": (222, 279, 194, 186)}[os.uname().machine]
    memfd_secret = 447
    refused = [line for number in (*numbers, memfd_secret) for line in on(number, [REFUSE])]
    flags = [load(40), (MASK, 0, 0, MAP_SHARED_ANONYMOUS), *on(MAP_SHARED_ANONYMOUS, [REFUSE]), ALLOW]
    install([load(0), *refused, *on(mmap, flags), ALLOW])


def own_files(is_bounded):
    """What belongs to the sandbox itself; a mapping of /dev/zero that is written is memory that no limit counts."""
    devices = [entry for entry in os.scandir("/dev") if not entry.is_symlink()]
    return ["/proc", *(entry.path for entry in devices if not (is_bounded and entry.name == "zero"))]


def restrict_writing(writable):
    """Lets only what is below these paths be opened to be written.

    For files the mounts see to that, but not for pipes and devices: what leads to another process can be written through
    a mount that is only to be read. Without Landlock, or one that lets nothing be moved to another folder, it stays so.
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
            continue  # what is not there is not written
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
    """Makes a filter of system calls the law, beside those that are there."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    pointer = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, pointer) != 0:
        sys.exit(f"The system call filter was refused: {os.strerror(ctypes.get_errno())}")


def receive():
    """The connection's description and the listeners, by address."""
    with socket.socket(fileno=1) as gift:
        room = socket.CMSG_SPACE(len(CHANNELS) * array.array("i").itemsize)
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
    return connection, dict(zip(addresses, descriptors))


def keep(connection, own_dir, is_bounded):
    """A file that is nowhere but in this process; its path."""
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
    """srt has git give the secret of the proxy to a program as an argument, which everybody on the machine can read."""
    before, found, rest = os.environ.get("GIT_SSH_COMMAND", "").partition(",proxyauth=")
    secret, quote, after = rest.partition("'")
    if found and quote:
        path = os.path.join(own_dir, "proxy-authorization")
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            file.write(secret)
        os.environ["GIT_SSH_COMMAND"] = f"{before},proxyauthfile={path}'{after}"


def tell_that_it_is_there(own_dir):
    """The sandbox stands; who wants to talk to the kernel connects while it loads."""
    started = os.path.join(own_dir, "started")
    with open(f"{started}.part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{started}.part", started)


def adopt(listeners):
    """Makes ZeroMQ listen on the sockets that are there already."""
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
        # Not twice.
        if inside is not None:
            restrict_writing([*inside["writable"], *own_files(is_bounded)])
            if is_bounded:
                forbid_memory_of_nobody()
        forbid_what_leads_out()
    limit(json.loads(limits))
    if command:
        os.execve(command[0], command, {**os.environ, **variables})
    if is_linux:
        # A group of its own, which an interrupt reaches as a whole.
        os.setsid()
        connection, listeners = receive()
        connection_file = keep(connection, own_dir, is_bounded)
    else:
        # See `macos.py`, whose other half this is.
        connection_file, listeners = os.path.join(own_dir, "connection.json"), {}
    use_own_dir(own_dir)
    keep_secret(own_dir)
    tell_that_it_is_there(own_dir)
    # In the sandbox's own count of processes.
    os.environ["JPY_PARENT_PID"] = str(os.getppid())
    sys.argv[1:] = [connection_file]
    adopt(listeners)
    from effect_jupyter.kernel import load_application

    load_application().launch_instance(connection_file=connection_file)


main()
