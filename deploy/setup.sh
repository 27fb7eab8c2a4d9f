#!/bin/sh
# Sets up a machine for fedmedclip; `setup.sh --help` says how.
set -eu
umask 022

usage() {
    cat <<'TEXT'
Usage: deploy/setup.sh site|aggregator|serve|broker [OPTION]...

Sets this machine up for one part of a federation; for two parts on one machine run it twice. Run again it does only
what is missing, and keeps files that somebody edited. It starts nothing, and says at its end what is left to do.

  site, aggregator,  user fedmedclip; the command in /opt/fedmedclip/venv and as /usr/local/bin/fedmedclip;
  serve              configuration in /etc/fedmedclip; state, bundle and images in /var/lib/fedmedclip; a systemd unit
  broker             the configuration of an installed Mosquitto in /etc/mosquitto, and its right to port 443

  --root DIR         set up the machine whose files lie in DIR (an image, a chroot); the paths below are paths in it
  --python PYTHON    Python 3.11 or later (default: python3)
  --wheel FILE       install this wheel instead of the newest release of fedmedclip-edge
  --offline DIR      take all packages from the wheels in DIR, nothing from the network
  --no-install       no command: only user, folders, configuration and unit
  --passwords        broker: members show passwords instead of certificates
  --dry-run          say what would be done, and do nothing
  --help             this text

pip's own settings hold: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu is a PyTorch without CUDA.
Exit code 0: done; 2: something has to be changed first.
TEXT
}

examples=/opt/fedmedclip/examples
venv=/opt/fedmedclip/venv
state=/var/lib/fedmedclip
units=/etc/systemd/system

say() { printf '%s\n' "$*"; }

fail() {
    printf 'setup.sh: %s\n' "$*" >&2
    exit 2
}

# act SENTENCE COMMAND...: say what is done, and do it unless it is only to be said.
act() {
    say "$1"
    shift
    [ -n "$dry_run" ] || "$@"
}

# Run a command on the machine that is set up.
inside() {
    if [ -n "$root" ]; then chroot "$root" "$@"; else "$@"; fi
}

# number passwd|group NAME: of the machine that is set up; this one may have another.
number() {
    if [ "$2" = root ]; then
        say 0
        return
    fi
    found=$(awk -F: -v name="$2" '$1 == name { print $3; exit }' "$root/etc/$1" 2>/dev/null || true)
    [ -n "$found" ] || found=$(inside getent "$1" "$2" | cut -d: -f3)
    [ -n "$found" ] || fail "there is no $2 in $root/etc/$1"
    say "$found"
}

# own PATH USER:GROUP
own() {
    [ -n "$privileged" ] || return 0
    user=$(number passwd "${2%:*}")
    group=$(number group "${2#*:}")
    chown "$user:$group" "$1"
}

# folder PATH MODE USER:GROUP
folder() {
    if [ -d "$root$1" ]; then
        say "as it is: folder $1"
    elif [ -e "$root$1" ] || [ -h "$root$1" ]; then
        fail "$1 is no folder; move it away"
    else
        act "folder $1 ($3, $2)" make_folder "$root$1" "$2" "$3"
    fi
}

make_folder() {
    mkdir -p "$1.partial"
    chmod "$2" "$1.partial"
    own "$1.partial" "$3"
    mv "$1.partial" "$1"
}

# put NAME PATH MODE USER:GROUP < TEXT: write a file unless somebody edited it. What was written last lies under NAME
# in $examples, and a file that differs from it was edited.
put() {
    text=$(cat && printf .)
    text=${text%.}
    file=$root$2
    last=$root$examples/$1
    if [ ! -e "$file" ] && [ ! -h "$file" ]; then
        act "file $2 ($4, $3)" write "$file" "$3" "$4"
    elif [ ! -f "$file" ]; then
        fail "$2 is no file; move it away"
    elif printf %s "$text" | cmp -s - "$file"; then
        say "as it is: file $2"
    elif cmp -s "$last" "$file"; then
        act "file $2, as it is now ($4, $3)" write "$file" "$3" "$4"
    else
        say "kept: file $2, which was edited; it would be as $examples/$1"
    fi
    if ! printf %s "$text" | cmp -s - "$last" && [ -z "$dry_run" ]; then
        write "$last" 0644 root:root
    fi
}

# empty_once PATH MODE USER:GROUP: a file that others fill.
empty_once() {
    if [ -e "$root$1" ]; then
        say "as it is: file $1"
    else
        text=''
        act "empty file $1 ($3, $2)" write "$root$1" "$2" "$3"
    fi
}

# write FILE MODE USER:GROUP: $text, whole or not at all.
write() {
    mkdir -p "$(dirname "$1")"
    (umask 077 && printf %s "$text" >"$1.partial")
    chmod "$2" "$1.partial"
    own "$1.partial" "$3"
    mv -f "$1.partial" "$1"
}

add_user() {
    if grep -qs '^fedmedclip:' "$root/etc/passwd"; then
        say "as it is: user fedmedclip"
    elif [ -z "$privileged$dry_run" ]; then
        say "left out, for it takes root: user fedmedclip, and to whom files belong"
    else
        act "user fedmedclip, who cannot log in" make_user
    fi
}

make_user() {
    mkdir -p "$root/etc"
    systemd-sysusers ${root:+"--root=$root"} \
        --inline 'u fedmedclip - "fedmedclip, federated learning" /var/lib/fedmedclip' ||
        fail "systemd-sysusers cannot add the user fedmedclip; the reason is above"
}

# install_command EXTRAS
install_command() {
    package=${wheel:-fedmedclip-edge}$1
    if [ -n "$no_install" ]; then
        say "left out, as asked: $package in $venv"
        return
    fi
    if [ -e "$root$venv/bin/pip" ]; then
        say "as it is: Python environment $venv"
    else
        act "Python environment $venv" make_environment
    fi
    act "packages $package in $venv" install_packages "$package"
    command=/usr/local/bin/fedmedclip
    if [ -e "$root$command" ] || [ -h "$root$command" ]; then
        say "as it is: $command"
    else
        act "link $command" link_command "$root$command"
    fi
}

link_command() {
    mkdir -p "$(dirname "$1")"
    ln -s "$venv/bin/fedmedclip" "$1"
}

make_environment() {
    inside "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$python is no Python 3.11 or later; name one with --python"
    inside "$python" -m venv "$venv" || {
        rm -rf "$root$venv"
        fail "$python makes no environment; on Debian: apt install python3-venv"
    }
}

install_packages() {
    inside env PIP_ROOT_USER_ACTION=ignore "$venv/bin/python" -m pip install --quiet --no-input \
        --disable-pip-version-check ${offline:+--no-index "--find-links=$offline"} "$1" ||
        fail "pip cannot install $1; the reason is above"
}

# configuration NAME: the example, with its paths to where a service may read and write.
configuration() {
    [ -r "$here/$1.toml" ] || fail "$here/$1.toml is missing; run setup.sh where it lies, in the folder deploy"
    sed -e "s|^# state = \"\([a-z]*-state\)\" *|state = \"$state/\1\"  |" \
        -e "s|^bundle = \"bundle\" *|bundle = \"$state/bundle\"  |" \
        -e "s|^# heads = \"\(site-state/[a-z.]*\)\" *|# heads = \"$state/\1\"  |" \
        -e "s|^data = \"images\" *|data = \"$state/images\"  |" \
        -e "s|^path = \"images\" *|path = \"$state/images\"  |" "$here/$1.toml"
}

# set_up_member NAME EXTRAS
set_up_member() {
    add_user
    folder /opt/fedmedclip 0755 root:root
    folder "$examples" 0755 root:root
    folder /etc/fedmedclip 0750 root:fedmedclip
    folder "$state" 0750 fedmedclip:fedmedclip
    install_command "$2"
    text=$(configuration "$1")
    printf '%s\n' "$text" | put "$1.toml" "/etc/fedmedclip/$1.toml" 0640 root:fedmedclip
    put "fedmedclip-$1.service" "$units/fedmedclip-$1.service" 0644 root:root <"$here/fedmedclip-$1.service"
    read_units
    cat <<TEXT

Left to do:
  Copy the bundle to $state/bundle, readable for fedmedclip.
  Edit /etc/fedmedclip/$1.toml; certificates and password files beside it: root:fedmedclip, 0640.
TEXT
    case $1 in
    site) say "  runuser -u fedmedclip -- fedmedclip doctor --config /etc/fedmedclip/site.toml" ;;
    serve) say "  runuser -u fedmedclip -- fedmedclip trust KEY    # who signed bundle and heads" ;;
    esac
    say "  systemctl enable --now fedmedclip-$1"
}

set_up_broker() {
    [ -d "$root/etc/mosquitto" ] || fail "there is no /etc/mosquitto; install Mosquitto first"
    if grep -qs '^include_dir /etc/mosquitto/conf.d' "$root/etc/mosquitto/mosquitto.conf"; then
        configured=/etc/mosquitto/conf.d/fedmedclip.conf
    else
        configured=/etc/mosquitto/mosquitto.conf
    fi
    variant=mosquitto${passwords:+-passwords}.conf
    folder /opt/fedmedclip 0755 root:root
    folder "$examples" 0755 root:root
    put mosquitto.conf "$configured" 0644 root:root <"$here/$variant"
    [ -z "$passwords" ] || empty_once /etc/mosquitto/passwords 0600 mosquitto:mosquitto
    put federation.acl /etc/mosquitto/federation.acl 0600 mosquitto:mosquitto <"$here/federation.acl"
    folder /etc/mosquitto/certs 0755 root:root
    folder "$units/mosquitto.service.d" 0755 root:root
    put mosquitto-port-443.conf "$units/mosquitto.service.d/fedmedclip.conf" 0644 root:root \
        <"$here/mosquitto-port-443.conf"
    read_units
    certificates='broker.pem and broker-key.pem'
    [ -n "$passwords" ] || certificates="ca.pem (signs the members' certificates), $certificates"
    cat <<TEXT

Left to do:
  Put $certificates into /etc/mosquitto/certs: mosquitto:mosquitto, the key 0600.
  Name federation and sites in /etc/mosquitto/federation.acl.
TEXT
    [ -z "$passwords" ] || say "  mosquitto_passwd /etc/mosquitto/passwords NAME, for each site and for aggregator"
    say "  systemctl restart mosquitto"
}

read_units() {
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        act "systemd reads its units again" systemctl daemon-reload
    fi
}

root='' python=python3 wheel='' offline='' no_install='' passwords='' dry_run='' part=''
while [ $# -gt 0 ]; do
    case $1 in
    --root | --python | --wheel | --offline)
        [ -n "${2-}" ] || fail "$1 needs a value (see setup.sh --help)"
        case $1 in --root) root=$2 ;; --python) python=$2 ;; --wheel) wheel=$2 ;; --offline) offline=$2 ;; esac
        shift
        ;;
    --no-install) no_install=1 ;;
    --passwords) passwords=1 ;;
    --dry-run) dry_run=1 ;;
    --help | -h)
        usage
        exit 0
        ;;
    site | aggregator | serve | broker)
        [ -z "$part" ] || fail "one part at a time: $part or $1"
        part=$1
        ;;
    *) fail "unknown argument '$1' (see setup.sh --help)" ;;
    esac
    shift
done
[ -n "$part" ] || fail "say for which part: site, aggregator, serve or broker (see setup.sh --help)"
[ -z "$passwords" ] || [ "$part" = broker ] || fail "--passwords is for the broker; a $part has password_file"
privileged=1
[ "$(id -u)" = 0 ] || privileged=''
[ -n "$privileged$root$dry_run" ] || fail "run it as root, or with --dry-run, or with --root DIR"
if [ -n "$root" ]; then
    root=$(cd "$root" && pwd) || fail "--root: there is no such folder"
    [ "$root" != / ] || root=''
fi
here=$(cd "$(dirname "$0")" && pwd)
[ -z "$dry_run" ] || say "Would do, but does nothing:"
case $part in
site) set_up_member site '[train,dicom]' ;;
aggregator) set_up_member aggregator '[pages]' ;;
serve) set_up_member serve '[serve]' ;;
broker) set_up_broker ;;
esac
