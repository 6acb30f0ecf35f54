"""The wheels that a GPU machine without a network needs for tests/gpu, in a folder that is small enough to be carried there

    python tools/gpu_wheels.py FOLDER [--python 3.12] [--rehearse]

The machine is taken to have what images for such machines have: Python, torch for CUDA 13, transformers, peft, accelerate, safetensors, pyarrow,
pandas, PyYAML, psutil and tqdm, but no bitsandbytes, datasets, TRL or widgets. Versions are those of constraints.txt. bitsandbytes is repacked with
its libraries for CUDA 13 and for the CPU alone, which takes it from 43 MB to about 2. There, in the root of the repository:

    python3 -m pip install -q --no-index --no-deps --no-compile --target /tmp/site FOLDER/*.whl
    PYTHONPATH=/tmp/site:. python3 tests/gpu/all.py --out FOLDER-FOR-RESULTS

`--rehearse` does that here, with the Python that runs this script, on the CPU.
"""
import argparse, os, pathlib, subprocess, sys, tempfile, zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = "bitsandbytes datasets dill fastcore multiprocess trl".split()
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (34, 31, 28, 27, 24, 17)] + ["manylinux2014_x86_64",
    "manylinux1_x86_64"]
LIBRARIES = ("libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so")
LIMIT = 64*2**20  # Bytes that can be carried, the repository with them


def pinned():
    "The requirements, with their versions"
    pins = dict(o.split("==") for o in (ROOT/"constraints.txt").read_text().splitlines() if "==" in o)
    return [f"{name}=={pins[name]}" for name in NAMES]


def download(folder, python):
    "Fetch the wheels for the other machine's Python, without what they require"
    platforms = [o for p in PLATFORMS for o in ("--platform", p)]
    subprocess.run([sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms, "-d", str(folder),
        *pinned()], check=True)


def dropped(name):
    "Is it a library for another card?"
    file = name.rsplit("/", 1)[-1]
    return file.startswith("libbitsandbytes_") and file not in LIBRARIES


def slim(wheel):
    "Repack bitsandbytes without the libraries for other cards"
    small = wheel.with_suffix(".small")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            if dropped(item.filename): continue
            data = old.read(item)
            if item.filename.endswith(".dist-info/RECORD"):
                data = "".join(l for l in data.decode().splitlines(True) if not dropped(l.split(",")[0])).encode()
            new.writestr(item, data)
    small.replace(wheel)


def tree_size():
    "Bytes of the files that git keeps"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True,
        check=True).stdout.decode().split("\0")
    return sum((ROOT/n).stat().st_size for n in names if n and (ROOT/n).is_file())


def rehearse(folder):
    "Install the wheels beside this Python's own packages, and run the checks with them"
    with tempfile.TemporaryDirectory() as site:
        wheels = sorted(map(str, folder.glob("*.whl")))
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile",
            "--target", site, *wheels], check=True)
        env = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "HF_DATASETS_CACHE": site}
        return subprocess.run([sys.executable, str(ROOT/"tests/gpu/all.py"), "--out", str(folder)], cwd=ROOT,
            env=env).returncode


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--python", default="3.12", help="of the machine")
    p.add_argument("--rehearse", action="store_true", help="run the checks here with these wheels")
    args = p.parse_args()
    if args.rehearse: args.python = f"{sys.version_info.major}.{sys.version_info.minor}"
    args.folder.mkdir(parents=True, exist_ok=True)
    download(args.folder, args.python)
    for wheel in args.folder.glob("bitsandbytes-*.whl"): slim(wheel)
    wheels = sorted(args.folder.glob("*.whl"))
    for w in wheels: print(f"{w.stat().st_size/2**20:7.1f} MiB  {w.name}")
    total = sum(w.stat().st_size for w in wheels) + tree_size()
    print(f"{total/2**20:7.1f} MiB  with the repository, of {LIMIT//2**20}")
    if total > LIMIT: return "too much to carry"
    return rehearse(args.folder) if args.rehearse else 0


if __name__ == "__main__": raise SystemExit(main())
