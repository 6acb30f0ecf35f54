"""Jupyter kernels that begin with the libraries imported: a server imports them once and forks a child for each kernel.

    python tests/warm.py SOCKET           the server
    python tests/warm.py SOCKET -f FILE   a kernel, as a kernelspec starts it: stands for the child until that ends

A notebook gets a process of its own, in which nothing of loranb has been imported.
"""
import atexit, json, os, signal, socket, sys, threading


def serve(path):
    "Import what nearly every notebook imports, then fork a child for each who asks"
    import bitsandbytes, datasets, ipykernel.kernelapp, ipywidgets, peft, plotly.graph_objects, transformers
    transformers.Trainer, transformers.LlamaForCausalLM, transformers.AutoModelForCausalLM  # imported when first asked for
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children need no waiting for
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    while True:
        asker, _ = server.accept()
        if os.fork() == 0: return become_kernel(asker)
        asker.close()


def become_kernel(asker):
    "The child: takes over arguments, environment and folder of the process that asks, and ends with it"
    from ipykernel.kernelapp import launch_new_instance
    asked = json.loads(asker.makefile().readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["folder"])
    asker.sendall(f"{os.getpid()}\n".encode())

    def end_with_asker():
        asker.recv(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_asker, daemon=True).start()
    try: launch_new_instance(asked["argv"], log_level="ERROR")
    finally:
        atexit._run_exitfuncs()
        os._exit(0)  # without the seconds that taking the libraries down would need


def stand_for_kernel(path, argv):
    "Ask for a kernel, hand on its signals, and last as long as it does"
    asker = socket.socket(socket.AF_UNIX)
    asker.connect(path)
    env = {k: v for k, v in os.environ.items() if k != "JPY_PARENT_PID"}  # the child's parent is the server
    asker.sendall(json.dumps(dict(argv=argv, env=env, folder=os.getcwd())).encode() + b"\n")
    pid = int(asker.makefile().readline())
    for s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, lambda s, _: os.kill(pid, s))
    while asker.recv(1): pass


if __name__ == "__main__":
    if len(sys.argv) > 2: stand_for_kernel(sys.argv[1], sys.argv[2:])
    else: serve(sys.argv[1])
