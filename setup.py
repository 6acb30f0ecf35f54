"Package metadata: everything is read from settings.ini."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

cfg = ConfigParser()
cfg.read("settings.ini", encoding="utf-8")
s = cfg["DEFAULT"]
setup(version=s["version"], description=s["description"], keywords=s["keywords"].split(), author=s["author"],
      author_email=s["author_email"], license="Apache-2.0", url=s["git_url"], python_requires=f'>={s["min_python"]}',
      long_description=Path("README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
      install_requires=s["requirements"].split(), extras_require={"dev": s["dev_requirements"].split()},
      entry_points={"console_scripts": ["loranb = loranb.cli:main"], "nbdev": ["loranb = loranb._modidx:d"]},
      packages=find_packages(include=["loranb*"]), package_data={"loranb": ["assets/*", "assets/**/*"]})
