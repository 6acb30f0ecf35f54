"A few hundred of the broken files of `python tests/soak/fuzz.py`, other ones each time"
import subprocess, sys, time
from pathlib import Path


def test_random_damage_is_read_or_refused_in_one_sentence():
    script = Path(__file__).parents[1]/"soak"/"fuzz.py"
    done = subprocess.run([sys.executable, script, "--cases", "300", "--seed", str(int(time.time()))], capture_output=True,
        text=True)
    assert done.returncode == 0 and "300 cases, 0 wrong" in done.stdout, done.stdout + done.stderr
