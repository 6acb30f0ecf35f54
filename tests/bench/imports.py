"Seconds of `import loranb` in a new process, median of 5, against the figure to hold"
import json, statistics, subprocess, sys

LIMIT, RUNS = 0.3, 5
CODE = "import time; t = time.perf_counter(); import loranb; print(time.perf_counter() - t)"


def seconds():
    return float(subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    seconds()  # the first one may compile bytecode
    took = statistics.median(seconds() for _ in range(RUNS))
    print(json.dumps({"what": "import loranb", "seconds": round(took, 4), "limit": LIMIT, "holds": took <= LIMIT}))
