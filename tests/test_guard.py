"""The guard with pretend streams, and in real kernels driven by jupyter_client (no front end): the installed ipykernel and 6.17.1."""
import os, pathlib, signal, sys, threading, time
from collections import defaultdict
from types import SimpleNamespace
import pytest
from jupyter_client.manager import start_new_kernel
from jupyter_client.session import Session
sys.path.insert(0, str(pathlib.Path(__file__).parent/"browser"))
from lab import KERNELS, ROOT, old_ipykernel
from loranb.train.guard import Guard, Tap, find_shell, hand_to_main, peek

SESSION = Session(key=b"secret")
def wire(kind, **content): return SESSION.serialize(SESSION.msg(kind, content), ident=b"front end")
def click(comm_id="a", data="stop"): return wire("comm_msg", comm_id=comm_id, data=data)

class Stream:
    _recv_copy = True
    def __init__(self):
        self.got, self.waiting, self.is_closed = [], [], False
        self._recv_callback = self.kernel = lambda m: self.got.append(m) or "answer"
    def closed(self): return self.is_closed
    def flush(self, flag):
        while self.waiting: self._recv_callback(self.waiting.pop(0))

@pytest.fixture
def stream(): return Stream()
def guard(stream, on_stop=lambda: None, listen=None):
    g = Guard(on_stop, listen)
    g.kernel = SimpleNamespace(shell_stream=stream, session=SESSION)
    return g

class Forgetless(Session):
    "A session that remembers also what it has only peeked at."
    def deserialize(self, msg, content=True, copy=True):
        res = super().deserialize(msg, content, copy)
        self.digest_history.add(msg[0])
        return res

def test_off_when_looking_would_eat_the_message(stream):
    g = guard(stream)
    g.kernel.session = Forgetless(key=b"secret")
    with g: assert g.kind == "off" and "Duplicate" in g.reason

def test_peek_is_side_effect_free_and_checks_the_signature():
    frames = click()
    keep = list(frames)
    assert peek(SESSION, frames) == ("a", "stop") and frames == keep and not SESSION.digest_history
    frames[2] = b"0"*64
    with pytest.raises(ValueError): peek(SESSION, frames)

def test_frames_that_are_not_copied(stream):
    import zmq
    stream._recv_copy, seen, frames = False, [], [zmq.Frame(f) for f in click()]
    tap = Tap(stream, SESSION, {"a": seen.append})
    assert stream._recv_callback(frames) == "answer" and seen == ["stop"] and stream.got == [frames]
    tap.remove()
    assert stream._recv_callback is stream.kernel

def test_everything_goes_on_even_garbage_and_failing_listeners(stream, caplog):
    with guard(stream, listen={"a": lambda d: 1/0}) as g:
        stream.waiting = [click(), [b"garbage"], wire("execute_request", code="1"), click("b")]
        g.poll()
    assert len(stream.got) == 4 and "ZeroDivisionError" in caplog.text

def test_listen_is_read_live(stream):
    listen, seen = {}, []
    with guard(stream, listen=listen) as g:
        listen["late"] = seen.append
        stream.waiting = [click("late")]
        g.poll()
    assert seen == ["stop"]

def test_restored_on_exceptions_and_reusable(stream):
    g, before = guard(stream), signal.getsignal(signal.SIGINT)
    for _ in range(2):
        with pytest.raises(ValueError):
            with g: raise ValueError
        assert stream._recv_callback is stream.kernel and signal.getsignal(signal.SIGINT) is before

def test_somebody_elses_callback_and_handler_are_left_alone(stream):
    other, handler, before = lambda m: None, lambda *_: None, signal.getsignal(signal.SIGINT)
    try:
        with guard(stream): stream._recv_callback = other; signal.signal(signal.SIGINT, handler)
        assert stream._recv_callback is other and signal.getsignal(signal.SIGINT) is handler
    finally: signal.signal(signal.SIGINT, before)

def test_taps_taken_away_in_any_order(stream):
    a, b, seen = Tap(stream, SESSION, {"a": print}), Tap(stream, SESSION, {}), []
    a.remove()
    stream._recv_callback(click())
    b.remove()
    assert stream._recv_callback is stream.kernel and len(stream.got) == 1

@pytest.mark.parametrize("spoil, reason", [(dict(shell_stream=None), "closed"), (dict(session=None), "serialize"),
    (dict(shell_channel_thread=SimpleNamespace(io_loop=1)), "io_loop")])
def test_off_on_any_surprise(stream, spoil, reason):
    g = guard(stream)
    for k, v in spoil.items(): setattr(g.kernel, k, v)
    with g: g.poll(); assert g.kind == "off" and reason in g.reason
    assert stream._recv_callback is stream.kernel

def test_off_when_the_stream_is_closed_or_fails(stream):
    stream.is_closed = True
    with guard(stream) as g: assert g.kind == "off" and "receiv" in g.reason
    stream.is_closed, stream.flush = False, lambda flag: 1/0
    with guard(stream) as g:
        assert g.kind == "poll"
        g.poll()
        assert g.kind == "off" and "zero" in g.reason

def test_without_a_kernel():
    with Guard(lambda: None) as g: g.poll(); assert g.kind == "off" and "no kernel" in g.reason
    called = []
    hand_to_main(lambda: called.append(1))
    assert called == [1]
    with pytest.raises(ZeroDivisionError): hand_to_main(lambda: 1/0)

def test_off_the_main_thread(stream):
    out = []
    def work():
        with guard(stream) as g: g.poll(); out.extend([g.kind, g.reason, signal.getsignal(signal.SIGINT)])
    before = signal.getsignal(signal.SIGINT)
    t = threading.Thread(target=work); t.start(); t.join()
    assert out[0] == "off" and "main thread" in out[1] and out[2] is before
    stream.io_loop = loop = object()
    g = guard(stream); g.kernel.shell_channel_thread = SimpleNamespace(io_loop=loop)
    t = threading.Thread(target=lambda: out.append(find_shell(g.kernel)[0])); t.start(); t.join()
    assert out[-1] == "tap"

def test_poll_on_another_thread_does_nothing(stream):
    with guard(stream) as g:
        stream.waiting = [click()]
        t = threading.Thread(target=g.poll); t.start(); t.join()
        assert len(stream.waiting) == 1
        g.poll()
    assert len(stream.got) == 1

def test_ignored_sigint_stays_ignored(stream):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(LookupError), guard(stream, lambda: 1/0) as g, g.interruptible(LookupError):
            for _ in range(2): signal.raise_signal(signal.SIGINT)
            g.leave()
            time.sleep(5)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally: signal.signal(signal.SIGINT, before)

def test_second_interrupt_in_poll_loses_no_message(stream):
    "The interrupt comes when the message has been received and is not yet passed on."
    def twice(data): signal.raise_signal(signal.SIGINT); signal.raise_signal(signal.SIGINT)
    stops = []
    with pytest.raises(KeyboardInterrupt):
        with guard(stream, lambda: stops.append(1), {"a": twice}) as g:
            stream.waiting = [click(), wire("execute_request", code="1")]
            g.poll()
    assert stops == [1] and len(stream.got) == 2

# ---- real kernels

SETUP = """
import sys, time, signal, threading, ipykernel
from ipykernel.comm import Comm
from loranb.train.guard import Guard, hand_to_main
k = get_ipython().kernel
def state(): return [k.shell_stream._recv_callback, k.shell_stream._recv_copy, signal.getsignal(signal.SIGINT), dict(k.shell_handlers), getattr(k, 'saved_sigint_handler', None)]
def same(a, b): return all(x is y or x == y for x, y in zip(a, b))
log, stop = [], []
c = Comm('test')
def handled(msg):
    log.append('handler')
    if msg['content']['data'] == 'train': hand_to_main(train)
    if msg['content']['data'] == 'fail': hand_to_main(lambda: 1/0)
    if msg['content']['data'] == 'wait': hand_to_main(wait)
c.on_msg(handled)
def wait():
    print('waiting', flush=True)
    time.sleep(20)
def train(steps=500):
    del stop[:]
    log.append('start')
    before = state()
    with Guard(lambda: stop.append('interrupt'), {c.comm_id: stop.append}) as g:
        print('started', g.kind, g.reason, threading.current_thread() is threading.main_thread(), flush=True)
        for i in range(steps):
            time.sleep(.01)
            g.poll()
            if stop: break
    display('displayed')
    print('ended', i < steps-1, stop, same(before, state()))
    log.append('end')
"""

class Kernel:
    "A kernel and what it has said: texts by the message that they answer, and the order of what happened."
    def __init__(self, version):
        path = [*([old_ipykernel(version)] if version else []), ROOT]
        self.km, self.kc = start_new_kernel(kernel_name="python3",
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, path))))
        self.texts, self.idle, self.statuses = defaultdict(str), set(), []
        self.done(self.run(SETUP))
        self.comm_id = self.say("print(c.comm_id)")
    def _read(self, timeout=20):
        m = self.kc.get_iopub_msg(timeout=timeout)
        parent, kind, content = m["parent_header"].get("msg_id"), m["msg_type"], m["content"]
        if kind == "stream": self.texts[parent] += content["text"]
        if kind == "display_data": self.texts[parent] += content["data"]["text/plain"]
        if kind == "error": self.texts[parent] += content["ename"]
        if kind == "status":
            self.statuses.append((content["execution_state"], parent))
            if content["execution_state"] == "idle": self.idle.add(parent)
    def run(self, code, **kw): return self.kc.execute(code, **kw)
    def click(self, data):
        msg = self.kc.session.msg("comm_msg", dict(comm_id=self.comm_id, data=data))
        self.kc.shell_channel.send(msg)
        return msg["header"]["msg_id"]
    def until(self, text, id):
        "Read until a line with this text is there as a whole: a print may come in pieces"
        while not any(text in line for line in self.texts[id].split("\n")[:-1]): self._read()
        return self.texts[id]
    def done(self, *ids):
        while not self.idle.issuperset(ids): self._read()
        return self.texts[ids[-1]].strip()
    def say(self, code): return self.done(self.run(code))

@pytest.fixture(scope="module", params=KERNELS.values(), ids=KERNELS.keys())
def kernel(request):
    k = Kernel(request.param)
    yield k
    k.kc.stop_channels()
    k.km.shutdown_kernel(now=True)

@pytest.fixture
def k(kernel):
    kernel.say("log.clear()")
    return kernel

def test_version(k, request):
    if "6.17.1" in request.node.name: assert k.say("print(ipykernel.__version__)") == "6.17.1"

def test_stop_in_a_cell(k):
    run = k.run("train()")
    k.until("started", run)
    a, stop, b = k.run("log.append('a'); print('A')"), k.click("stop"), k.run("log.append('b'); print('B')")
    k.done(run, a, stop, b)
    assert "started tap  True" in k.texts[run] or "started poll  True" in k.texts[run]
    assert "ended True ['stop'] True" in k.texts[run]                             # seen while busy, all restored
    assert k.texts[a].strip() == "A" and k.texts[b].strip() == "B"                # prints stay in their cell
    assert [x for x in eval(k.say("print(log)")) if x != "handler"] == ["start", "end", "a", "b"]
    assert "handler" in k.say("print(log)")                                       # and the widget's own handler ran too

def test_interrupt_once_is_a_request(k):
    run = k.run("train()")
    k.until("started", run)
    a = k.run("log.append('a')")
    k.km.interrupt_kernel()
    k.done(run, a)
    assert "ended True ['interrupt'] True" in k.texts[run] and "KeyboardInterrupt" not in k.texts[run]
    assert eval(k.say("print(log)")) == ["start", "end", "a"]

def test_interrupt_twice_raises(k):
    # not flushed: a cell that waits for its flush when the second interrupt comes would be torn inside the lock of its output
    run = k.run("before = state()\nwith Guard(lambda: print('asked')) as g:\n    print('started', flush=True)\n    "
        "while True: time.sleep(.01); g.poll()", stop_on_error=False)
    k.until("started", run)
    k.km.interrupt_kernel()
    k.until("asked", run)
    k.km.interrupt_kernel()
    assert "KeyboardInterrupt" in k.done(run)
    assert k.say("print(same(before, state()))") == "True"

def test_started_by_a_button(k):
    run = k.click("train")
    assert k.until("started", run).split()[-1] == "True"                          # on the main thread
    busy = k.statuses[-1]
    a, stop, b = k.run("log.append('a'); print('A')"), k.click("stop"), k.run("log.append('b'); print('B')")
    k.done(a, stop, b)
    assert "displayed" in k.texts[run] and "ended True ['stop'] True" in k.texts[run] and busy == ("busy", run)
    assert k.texts[a].strip() == "A" and k.texts[b].strip() == "B"
    assert [x for x in eval(k.say("print(log)")) if x != "handler"] == ["start", "end", "a", "b"]
    assert [s for s, id in k.statuses if id == run] == ["busy", "idle", "busy", "idle"]

def test_started_by_a_button_and_interrupted(k):
    run = k.click("train")
    k.until("started", run)
    a = k.run("log.append('a')")
    k.km.interrupt_kernel()
    k.done(a)
    assert "ended True ['interrupt'] True" in k.texts[run]
    wait = k.click("wait")  # no guard there: an interrupt raises at once
    k.until("waiting", wait)
    k.km.interrupt_kernel()
    k.until("KeyboardInterrupt", wait)
    assert k.say("print(k.saved_sigint_handler is signal.SIG_IGN)") == "True"     # an idle kernel ignores interrupts

def test_an_error_in_what_was_handed_over_is_shown(k):
    fail = k.click("fail")
    assert "ZeroDivisionError" in k.until("ZeroDivisionError", fail)
    assert k.say("print('alive')") == "alive"

def test_handed_over_from_a_cell_runs_after_it(k):
    cell = k.run("hand_to_main(lambda: log.append('job')); log.append('cell')")
    k.done(cell)
    assert eval(k.say("print(log)")) == ["cell", "job"]

def test_handed_over_in_an_awaiting_cell_runs_after_it(k):
    cell = k.run("import asyncio\nhand_to_main(lambda: log.append('job'))\nawait asyncio.sleep(.2)\nlog.append('cell')")
    k.done(cell)
    assert eval(k.say("print(log)")) == ["cell", "job"]

def test_handed_over_from_a_thread(k):
    t = k.run("t = threading.Thread(target=lambda: hand_to_main(train)); t.start(); t.join()")
    k.done(t)
    k.until("started", t)
    a = k.run("log.append('a')")
    k.km.interrupt_kernel()
    k.done(a)
    assert "displayed" in k.texts[t]
    assert eval(k.say("print(log)")) == ["start", "end", "a"]

def test_handed_over_from_a_subshell(k):
    if "kernel subshells" not in str(k.kc.kernel_info(reply=True, timeout=10)["content"].get("supported_features")):
        pytest.skip("this ipykernel has no subshells")
    k.kc.control_channel.send(k.kc.session.msg("create_subshell_request"))
    while (m := k.kc.get_control_msg(timeout=10))["msg_type"] != "create_subshell_reply": pass
    msg = k.kc.session.msg("execute_request",
        dict(code="print(threading.current_thread() is threading.main_thread()); hand_to_main(train)", silent=False))
    msg["header"]["subshell_id"] = m["content"]["subshell_id"]
    k.kc.shell_channel.send(msg)
    id = msg["header"]["msg_id"]
    k.until("started", id)
    assert k.texts[id].split()[0] == "False" and k.texts[id].split()[-1] == "True"
    assert k.statuses[-1][0] == "busy"                                            # after the subshell's idle
    a, stop = k.run("log.append('a')"), k.click("stop")
    k.done(a, stop)
    assert "displayed" in k.texts[id]
    assert [x for x in eval(k.say("print(log)")) if x != "handler"] == ["start", "end", "a"]

def test_nested_in_a_cell(k):
    run = k.run("before = state()\nwith Guard(print):\n    train()\nprint('outer', same(before, state()))")
    k.until("started", run)
    stop = k.click("stop")
    k.done(run, stop)
    assert "ended True ['stop'] True" in k.texts[run] and "outer True" in k.texts[run]

def test_messages_and_cells_in_a_flood(k):
    "200 clicks and 20 cells while busy: none lost, cells in order."
    run = k.run("n = []\nwith Guard(print, {c.comm_id: n.append}) as g:\n    print('started', flush=True)\n    end = "
        "time.time()+20\n" "    while len(n) < 200 and time.time() < end: time.sleep(.002); g.poll()\nprint(len(n))")
    k.until("started", run)
    ids = []
    for i in range(20):
        for _ in range(10): ids.append(k.click("x"))
        ids.append(k.run(f"log.append({i})"))
    k.done(run, *ids)
    assert k.texts[run].split()[-1] == "200"
    log = eval(k.say("print(log)"))
    assert [x for x in log if x != "handler"] == list(range(20)) and log.count("handler") == 200
