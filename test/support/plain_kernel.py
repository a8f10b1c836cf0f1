"""A kernel of Python that is not IPython."""

import contextlib
import io

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel


class Plain(Kernel):
    implementation = "plain"
    implementation_version = "1"
    language_info = {"name": "python", "version": "3", "mimetype": "text/x-python", "file_extension": ".py"}
    banner = "Python alone"
    names = {}

    def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **_):
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(code, self.names)
        except BaseException as error:
            # Without a name, as some kernels do it.
            content = {"ename": "", "evalue": repr(error), "traceback": []}
            self.send_response(self.iopub_socket, "error", content)
            return {"status": "error", "execution_count": self.execution_count, **content}
        if not silent and out.getvalue():
            self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": out.getvalue()})
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=Plain)
