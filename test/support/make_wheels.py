"""Writes wheels that hold nothing: make_wheels.py DIRECTORY NAME==VERSION ..."""

import sys
import zipfile

directory, *packages = sys.argv[1:]
for package in packages:
    name, version = package.split("==")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(f"{directory}/{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
