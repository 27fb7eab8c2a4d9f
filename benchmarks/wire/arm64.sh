#!/bin/sh
# Decodes and encodes the golden files on arm64, the usual processor of an edge machine, under qemu on another
# one, and decodes them once more with the independent decoder.
#
#     sh benchmarks/wire/arm64.sh [FOLDER]          FOLDER keeps the downloads (default: build/arm64)
#
# Needs Debian or Ubuntu with the packages qemu-user-static, debootstrap and dpkg, and a pip; debootstrap wants
# root. Mirror and index are the ones that apt and pip use already. No container, no binfmt: an arm64 Python and
# numpy from Debian's packages, unpacked into a folder, and aarch64 wheels of the base dependencies, which is what
# a site installs. Both builds of numpy are tried, Debian's and the wheel's.
#
# It serves for the protocol and its codecs; ONNX Runtime does not start under qemu's user emulation.
set -eu

repository=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$repository/build/arm64}
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1
}

if ! [ -e "$folder/system/.complete" ]; then
    rm -rf "$folder/stage" "$folder/system"
    debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,python3-numpy \
        "$release" "$folder/stage" "$(mirror)"
    for package in "$folder"/stage/var/cache/apt/archives/*.deb; do
        dpkg -x "$package" "$folder/system"
    done
    rm -rf "$folder/stage"
    touch "$folder/system/.complete"
fi

python=$(cd "$folder/system/usr/bin" && ls python3.[0-9]* | grep -v config | head -n 1)
version=${python#python}
libraries=/usr/lib/aarch64-linux-gnu
arm64() {
    # BLAS and LAPACK lie where Debian's alternatives would link to; nothing was installed, only unpacked.
    qemu-aarch64-static -E "LD_LIBRARY_PATH=$libraries/blas:$libraries/lapack" -L "$folder/system" "$folder/system/usr/bin/$python" "$@"
}

if ! [ -e "$folder/wheels/.complete" ]; then
    rm -rf "$folder/wheels" "$folder/site"
    for package in numpy zstandard msgspec cryptography cffi pycparser; do
        constraint=$(sed -n "s/^\($package==.*\)/\1/p" "$repository/constraints.txt")
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
            --python-version "$version" --implementation cp --abi "cp$(echo "$version" | tr -d .)" \
            --abi abi3 --abi none \
            --platform manylinux_2_34_aarch64 --platform manylinux_2_28_aarch64 \
            --platform manylinux_2_27_aarch64 --platform manylinux_2_26_aarch64 \
            --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --platform any \
            --dest "$folder/wheels" "${constraint:-$package}"
    done
    for wheel in "$folder"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$folder/site"
    done
    touch "$folder/wheels/.complete"
fi

check='
import platform, sys
sys.path[:0] = sys.argv[1:]
import cryptography, msgspec, numpy, zstandard
print(platform.machine(), "Python", platform.python_version(), "numpy", numpy.__version__, end=" ")
print("zstandard", zstandard.__version__, "zstd", ".".join(map(str, zstandard.ZSTD_VERSION)), end=" ")
print("msgspec", msgspec.__version__, "cryptography", cryptography.__version__)
import json
from tests.golden.make import FOLDER, differences
from tests.protocol import independent_decoder
found = differences()
for entry in json.loads((FOLDER / "manifest.json").read_text())["heads"]:
    head = independent_decoder.decode_head((FOLDER / entry["file"]).read_bytes(), entry["specification"])
    if independent_decoder.head_digest(head) != entry["head_digest"]:
        found.append(entry["file"] + ": the independent decoder reads it differently")
print("\n".join(found) or "all golden files: read and written the same")
sys.exit(bool(found))
'
cd "$repository"
echo "This machine: $(uname -m), $(qemu-aarch64-static --version | head -n 1)"
echo "1. the numpy of the wheels"
arm64 -B -c "$check" "$repository" "$folder/site"
echo "2. the numpy of Debian"
rm -rf "$folder/site-without-numpy"
cp -r "$folder/site" "$folder/site-without-numpy"
rm -rf "$folder"/site-without-numpy/numpy*
arm64 -B -c "$check" "$repository" "$folder/site-without-numpy"
