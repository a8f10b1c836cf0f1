/** Code that makes a kernel watch what it is sent: what no output shows spoils the counter, which the model follows. */

/** What is added to the counter for a message that comes twice, of which a kernel drops the second. */
const twice = 1_000_000

/** The same for an execution that comes before the last is over, which a kernel lets wait. */
const outOfTurn = 2_000_000

/** The code; where connections are cut, an execution that counts as lost may still be on its way with the next. */
export const watch = ({ isCut }: { readonly isCut: boolean }): string => `
def watch():
    import collections, threading
    shell = get_ipython()
    session = shell.kernel.session
    deserialize, send = session.deserialize, session.send
    seen, running, begun = set(), set(), set()

    def spoil(by):
        shell.user_ns["counter"] = shell.user_ns.get("counter", 0) + by

    def arrive(header):
        is_in_turn = header["msg_type"] in ("execute_request", "effect_jupyter_value_request")
        is_main = is_in_turn and header.get("subshell_id") is None
        # Jupyter Server asks this on each connection, and begins with the same id.
        if header["msg_id"] in seen and header["msg_type"] != "kernel_info_request":
            spoil(${twice})
        elif is_main and running and not ${isCut ? "True" : "False"}:
            spoil(${outOfTurn})
        seen.add(header["msg_id"])
        if is_main:
            running.add(header["msg_id"])

    # An interrupt may take the last words of an execution; the next message shows that it is over.
    def begin(header):
        running.difference_update(begun)
        begun.clear()
        begun.add(header["msg_id"])

    def receive(parts, content=True, copy=True):
        try:
            message = deserialize(parts, content=content, copy=copy)
        except ValueError as error:
            if "Duplicate Signature" in str(error):
                spoil(${twice})
            raise
        header = message["header"]
        # The thread that hands messages over looks into their headers first; the main thread may look again.
        is_main_thread = threading.current_thread() is threading.main_thread()
        if not content and not is_main_thread:
            arrive(header)
        elif content and is_main_thread and header["msg_type"] != "input_reply":
            begin(header)
        return message

    def publish(stream, msg_or_type, content=None, parent=None, *args, **kwargs):
        if msg_or_type == "status" and content["execution_state"] == "idle":
            running.discard((parent or {}).get("header", {}).get("msg_id"))
        return send(stream, msg_or_type, content, parent, *args, **kwargs)

    # The requests of a client that is connected to the kernel itself.
    class Waiting(collections.deque):
        def append(self, message):
            arrive(message["header"])
            super().append(message)

        def popleft(self):
            message = super().popleft()
            begin(message["header"])
            return message

    session.deserialize, session.send = receive, publish
    if getattr(shell.kernel, "requests", None) is not None:
        shell.kernel.requests._waiting = Waiting()
watch()
del watch
`
