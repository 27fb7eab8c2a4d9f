#!/bin/sh
# Makes a Debian package of this release for machines of the release and processor that it runs on:
#
#     deploy/debian_package.sh [FOLDER]          FOLDER gets fedmedclip-edge_VERSION_ARCHITECTURE.deb (default: build)
#
# Needs python3, python3-pip and dpkg-deb, no root. In it: the command in /opt/fedmedclip/venv and as
# /usr/bin/fedmedclip, the three units, and the configurations in /etc/fedmedclip, which are conffiles. EXTRAS says
# what of pyproject.toml comes along (default: serve); pip's settings hold, so PIP_NO_INDEX=1 and PIP_FIND_LINKS=DIR
# take wheels from a folder. What a hospital has in /var/lib/fedmedclip is never removed, nor is the user.
set -eu
umask 022

sources=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:-build}"
target=$(cd "${1:-build}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
venv=$tree/opt/fedmedclip/venv
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$sources/fedmedclip/__init__.py")
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$(python3 -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
architecture=$(dpkg --print-architecture)

# The command. The work folder's path is nowhere in it.
mkdir -p "$work/sources" "$tree/usr/bin"
(cd "$sources" && cp -r pyproject.toml README.md LICENSE fedmedclip aggregator edge_client export protocol simulation \
    "$work/sources")
python3 -m venv --without-pip "$venv"
python3 -m pip --python "$venv/bin/python" install --quiet --no-compile --constraint "$sources/constraints.txt" \
    "$work/sources[${EXTRAS:-serve}]"
find "$venv/bin" -type f -delete
cat >"$venv/bin/fedmedclip" <<'TEXT'
#!/opt/fedmedclip/venv/bin/python
from fedmedclip.command import main

main()
TEXT
chmod 755 "$venv/bin/fedmedclip"
sed -i '/^command/d' "$venv/pyvenv.cfg"
find "$venv" -type d -name tests -prune -exec rm -r {} +
find "$venv" -name direct_url.json -delete
python3 -m compileall -q -s "$tree" -p / "$venv/lib" || true
ln -s /opt/fedmedclip/venv/bin/fedmedclip "$tree/usr/bin/fedmedclip"

# Units and configurations, as setup.sh writes them.
mkdir -p "$tree/usr/lib/systemd/system" "$tree/DEBIAN"
install -d -m 0750 "$tree/etc/fedmedclip"
mkdir -p "$work/machine/etc"
echo 'fedmedclip:x:999:999::/var/lib/fedmedclip:/usr/sbin/nologin' >"$work/machine/etc/passwd"
echo 'fedmedclip:x:999:' >"$work/machine/etc/group"
for part in serve site aggregator; do
    "$sources/deploy/setup.sh" "$part" --root "$work/machine" --no-install >"$work/said"
    install -m 0644 "$work/machine/etc/systemd/system/fedmedclip-$part.service" "$tree/usr/lib/systemd/system/"
    install -m 0640 "$work/machine/etc/fedmedclip/$part.toml" "$tree/etc/fedmedclip/"
    echo "/etc/fedmedclip/$part.toml" >>"$tree/DEBIAN/conffiles"
done
sed -i 's|^# /etc/systemd/system/\([^;]*\);.*|# \1, of the package fedmedclip-edge. Change it with|' \
    "$tree"/usr/lib/systemd/system/*.service

cat >"$tree/DEBIAN/control" <<TEXT
Package: fedmedclip-edge
Version: $version
Architecture: $architecture
Maintainer: fedmedclip-edge contributors
Section: science
Priority: optional
Depends: python3 (>= $python~), python3 (<< $next~), passwd
Installed-Size: $(du -sk "$tree" | cut -f1)
Description: classifies images beside the PACS, and trains with other hospitals
 A frozen CLIP encoder with small heads that hospitals train together. With the service
 that answers images by DICOM, HTTP and a watch folder; the units are enabled by hand.
TEXT
cat >"$tree/DEBIAN/postinst" <<'TEXT'
#!/bin/sh
set -e
getent passwd fedmedclip >/dev/null || useradd --system --user-group --no-create-home \
    --home-dir /var/lib/fedmedclip --shell /usr/sbin/nologin fedmedclip
[ -d /var/lib/fedmedclip ] || install -d -m 0750 -o fedmedclip -g fedmedclip /var/lib/fedmedclip
chgrp fedmedclip /etc/fedmedclip /etc/fedmedclip/*.toml
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    [ -z "$2" ] || systemctl try-restart fedmedclip-serve fedmedclip-site fedmedclip-aggregator
fi
TEXT
cat >"$tree/DEBIAN/prerm" <<'TEXT'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now fedmedclip-serve fedmedclip-site fedmedclip-aggregator
fi
TEXT
cat >"$tree/DEBIAN/postrm" <<'TEXT'
#!/bin/sh
set -e
# Bytecode that root made since.
case $1 in remove | purge) rm -rf /opt/fedmedclip/venv; rmdir /opt/fedmedclip 2>/dev/null || true ;; esac
if [ "$1" = purge ]; then
    rmdir /etc/fedmedclip /var/lib/fedmedclip 2>/dev/null || true
    [ ! -d /var/lib/fedmedclip ] || echo "kept: /var/lib/fedmedclip, with this hospital's keys, heads and images" >&2
fi
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
TEXT
chmod 755 "$tree"/DEBIAN/post* "$tree/DEBIAN/prerm"
dpkg-deb --root-owner-group -Zzstd --build "$tree" "$target/fedmedclip-edge_${version}_$architecture.deb"
