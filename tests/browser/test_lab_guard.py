"""Stop, interrupts, prints and queued cells in a real JupyterLab, on the newest ipykernel and on 6.17.1. The widget is fifteen lines; what is tested is the guard."""
SETUP = '''import time, signal, threading, anywidget, traitlets
from loranb.train.guard import Guard, hand_to_main
class Box(anywidget.AnyWidget):
    _esm = """export default { render({ model, el }) {
      el.innerHTML = "<div class=box><button>Train</button><button>Stop</button><output></output></div>";
      const [train, stop] = el.querySelectorAll("button");
      train.onclick = () => model.send({ kind: "train" }); stop.onclick = () => model.send({ kind: "stop" });
      const draw = () => el.querySelector("output").textContent = model.get("text"); model.on("change:text", draw); draw();
    } }"""
    text = traitlets.Unicode("ready").tag(sync=True)
box, stops, order = Box(), [], []
k = get_ipython().kernel
def state(): return [k.shell_stream._recv_callback, k.shell_stream._recv_copy, signal.getsignal(signal.SIGINT), *k.shell_handlers.items()]
def stop(data):
    if data.get("content", {}).get("kind") == "stop": stops.append("stop")
def fit(steps=400):
    del stops[:]
    before = state()
    order.append("fit")
    with Guard(lambda: stops.append("interrupt"), {box.model_id: stop}) as g:
        for i in range(steps):
            if stops: break
            time.sleep(.025)
            g.poll()
            print("line", i)
            box.text = f"step {i}"
    box.text = f"ended {i < steps-1} {stops} {g.kind} restored {all(x is y or x == y for x, y in zip(before, state()))} main {threading.current_thread() is threading.main_thread()}"
    order.append("end")
    print("last", i)
def handled(w, content, buffers):
    order.append(content["kind"])
    if content["kind"] == "train": hand_to_main(fit)
box.on_msg(handled)
box'''
FOREVER = """with Guard(lambda: print('asked')) as g:
    print('running')
    while True: time.sleep(.02); g.poll()"""
CELLS = [SETUP, "fit()", "order.append('a'); print('a')", "order.append('b'); print('b')",
    "print([o for o in order if o != 'stop'])", FOREVER]

def text(nb): return nb.page.locator(".box output").inner_text()
def press(nb, name): nb.page.locator(".box").get_by_role("button", name=name, exact=True).click()
def wait_text(nb, part):
    nb.page.wait_for_function("part => document.querySelector('.box output')?.textContent.includes(part)", arg=part)
def opened(notebook):
    nb = notebook(CELLS)
    nb.run(0)
    wait_text(nb, "ready")
    nb.wait_idle()
    return nb

def test_stop_prints_and_queued_cells(notebook):
    nb = opened(notebook)
    for i in (1, 2, 3): nb.run(i)
    wait_text(nb, "step 5")
    press(nb, "Stop")
    wait_text(nb, "ended True ['stop']")
    assert "restored True main True" in text(nb)
    nb.wait_idle()
    lines = nb.output(1).split("\n")
    n = len(lines)-1
    # all of them, and the last step is the one before the loop ended
    assert lines == [f"line {i}" for i in range(n)]+[f"last {n}"]
    assert nb.output(2) == "a" and nb.output(3) == "b"
    nb.run(4)
    nb.wait_output(4, "['fit', 'end', 'a', 'b']")
    assert not nb.errors

def test_interrupt(notebook):
    nb = opened(notebook)
    nb.run(1)
    wait_text(nb, "step 5")
    nb.run(2)
    nb.interrupt()
    wait_text(nb, "ended True ['interrupt']")
    nb.wait_idle()
    assert "Traceback" not in nb.output(1) and "last" in nb.output(1) and nb.output(2) == "a"
    nb.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel.setSource(`with Guard(lambda: print('asked')) as g:\\n    print('in')\\n    while True: time.sleep(.02); g.poll()`) }")
    nb.run(1)
    nb.wait_output(1, "in")
    nb.interrupt()
    nb.wait_output(1, "asked")
    nb.interrupt()
    nb.wait_output(1, "KeyboardInterrupt")
    nb.wait_idle()
    nb.run(3)
    nb.wait_output(3, "b")

def test_started_by_a_button(notebook):
    nb = opened(notebook)
    press(nb, "Train")
    wait_text(nb, "step 5")
    assert nb.status() == "busy"
    nb.run(2)
    nb.run(3)
    wait_text(nb, "step 15")
    assert nb.waiting() and nb.output(2) == ""
    press(nb, "Stop")
    wait_text(nb, "ended True ['stop']")
    assert "restored True main True" in text(nb)
    nb.wait_idle()
    assert nb.output(2) == "a" and nb.output(3) == "b"
    press(nb, "Train")                                  # a second time, and interrupted
    wait_text(nb, "step 2")
    nb.run(4)
    nb.interrupt()
    wait_text(nb, "ended True ['interrupt']")
    nb.wait_output(4, "['train', 'fit', 'end', 'a', 'b', 'train', 'fit', 'end']")
    assert nb.output(1) == "" and not nb.errors
