#!/bin/bash
# Installs the real servers that the tests in this directory run against, from Debian's packages.
#
#   install.sh [all|synapse|irc|postgres|chromium|nginx]...      (default: all)
#
# What is installed already is skipped, so it may be run before every test run. Needs root and a Debian-like system.
#
#   irc       inspircd and ngircd
#   postgres  a PostgreSQL server; only its binaries are used, on a data directory of the tests' own
#   synapse   Synapse, in a small Debian unstable of its own that the tests change root into: no stable release carries
#             it. About 90 seconds and 700 MB in ${TRESTLE_SYNAPSE_ROOT:-$XDG_CACHE_HOME/trestle/synapse}
#
#   chromium  a browser with the libraries and fonts that it needs, unpacked into a folder of its own: nothing of it is
#             installed. 400 MB in ${TRESTLE_TEST_CHROMIUM_ROOT:-$XDG_CACHE_HOME/trestle/chromium}
#
#   nginx     the web server that make bench measures the media proxy beside, unpacked as well, unless this system has
#             one. 10 MB in ${TRESTLE_NGINX_ROOT:-$XDG_CACHE_HOME/trestle/nginx}
#
# No service is left running, and none is started. Everything that needs the network is tried five times.
#
# Exit status: 0 everything is there; 2 wrong usage; 3 not root, or no apt; 4 Synapse, and nothing but Synapse, could not
# be installed; 1 anything else.
#
# Environment: TRESTLE_SYNAPSE_ROOT, TRESTLE_TEST_CHROMIUM_ROOT, TRESTLE_NGINX_ROOT, and TRESTLE_DEBIAN_MIRROR (default: the
# one that apt uses here).
set -euo pipefail

readonly synapse_root=${TRESTLE_SYNAPSE_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/trestle/synapse}
readonly chromium_root=${TRESTLE_TEST_CHROMIUM_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/trestle/chromium}
readonly nginx_root=${TRESTLE_NGINX_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/trestle/nginx}
readonly marker=.trestle-installed
readonly stale_lists=-oAcquire::Check-Valid-Until=false
readonly attempts=${TRESTLE_INSTALL_ATTEMPTS:-5}
export DEBIAN_FRONTEND=noninteractive
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

say() { printf 'install.sh: %s\n' "$*"; }

# retry WHAT COMMAND...: again after 3, 9, 27 and 60 seconds, because mirrors and proxies have bad moments.
retry() {
  local what=$1 n=1 wait=3
  shift
  until "$@"; do
    if [ "$n" -ge "$attempts" ]; then
      say "$what: given up after $n attempts" >&2
      return 1
    fi
    say "$what: attempt $n of $attempts failed, again in $wait s" >&2
    sleep "$wait"
    n=$((n + 1)) wait=$((wait * 3))
    [ "$wait" -le 60 ] || wait=60
  done
}

# --- Packages of this system -------------------------------------------------------------------------------------------

lists_fresh=

# A mirror behind a cache may be older than the time for which its lists are good: their signature is checked, their age
# is not. One unreachable repository of many is no reason to give up: the installation decides.
update_lists() {
  [ -z "$lists_fresh" ] || return 0
  retry "apt-get update" apt-get update -q $stale_lists || say "going on with the package lists that are there" >&2
  lists_fresh=yes
}

# A policy-rc.d that answers 101 keeps package scripts from starting services. The one that was there comes back.
readonly policy=/usr/sbin/policy-rc.d
saved_policy=
forbid_services() {
  [ -z "$saved_policy" ] || return 0
  saved_policy=$(mktemp)
  if [ -e "$policy" ]; then cp -p "$policy" "$saved_policy"; else rm -f "$saved_policy"; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap allow_services EXIT
}
allow_services() {
  if [ -e "$saved_policy" ]; then mv "$saved_policy" "$policy"; else rm -f "$policy"; fi
}

# packages NAME...: a package counts as installed only when dpkg has configured it.
packages() {
  local missing=() p
  for p in "$@"; do
    if dpkg-query -W -f='${db:Status-Status} ${Version}\n' "$p" 2>/dev/null | grep -q '^installed '; then
      say "$p: installed ($(dpkg-query -W -f='${Version}' "$p"))"
    else
      missing+=("$p")
    fi
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  say "installing ${missing[*]}"
  forbid_services
  update_lists
  retry "apt-get install ${missing[*]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
}

install_postgres() {
  if compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then
    say "postgresql: installed ($(compgen -G '/usr/lib/postgresql/*/bin/postgres' | tail -n 1))"
  else
    packages postgresql
  fi
}

# --- Synapse -----------------------------------------------------------------------------------------------------------

# inside DIR COMMAND...: changes root, with a /proc that only this command sees, so that nothing stays mounted, whatever
# kills this script. Where mounting is not allowed it does without.
inside() {
  local dir=$1
  shift
  if unshare --mount --propagation private true 2>/dev/null; then
    unshare --mount --propagation private sh -c \
      'dir=$1; shift; mount -t proc proc "$dir/proc" 2>/dev/null; exec chroot "$dir" "$@"' sh "$dir" \
      env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
  else
    chroot "$dir" env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

works() { inside "$1" python3 -m synapse.app.homeserver --help >/dev/null 2>&1; }

version() { inside "$1" dpkg-query -W -f='${Version}' matrix-synapse; }

# A tree is removed only when nothing is mounted below it: a bound /dev would be emptied with it.
remove_tree() {
  local dir=$1 points
  [ -e "$dir" ] || return 0
  points=$(awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
  while read -r point; do
    [ -z "$point" ] || umount -l "$point"
  done <<<"$points"
  if awk -v dir="$dir/" 'index($5, dir) == 1 { found = 1 } END { exit !found }' /proc/self/mountinfo; then
    say "something is still mounted below $dir; unmount it, then run this again" >&2
    return 1
  fi
  rm -rf --one-file-system -- "$dir"
}

# The mirror that apt has this system's own packages from.
mirror() {
  local found=${TRESTLE_DEBIAN_MIRROR:-}
  [ -n "$found" ] || found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
  if [ -z "$found" ]; then
    say "apt's sources name no Debian mirror; set TRESTLE_DEBIAN_MIRROR to one" >&2
    return 1
  fi
  printf '%s\n' "$found"
}

bootstrap() {
  local dir=$1 debs=$2 from
  from=$(mirror) || return 1
  remove_tree "$dir" || return 1
  mkdir -p "$dir" "$debs"
  debootstrap --variant=minbase --include=ca-certificates,python3 --cache-dir="$debs" sid "$dir" "$from"
}

# If a tree was left half made by an earlier run, dpkg is helped to its feet first.
add_synapse() {
  local dir=$1
  inside "$dir" dpkg --configure -a &&
    inside "$dir" apt-get update -q -o Acquire::Retries=3 $stale_lists &&
    inside "$dir" apt-get install -q -y --no-install-recommends -o Acquire::Retries=3 matrix-synapse
}

install_synapse() {
  local parent building debs
  parent=$(dirname "$synapse_root") building=$synapse_root.building debs=$synapse_root.debs
  mkdir -p "$parent"
  # Two runs at once: the second waits, then finds the first one's work.
  exec 9>"$synapse_root.lock"
  flock 9

  if [ -e "$synapse_root/$marker" ]; then
    say "synapse: installed ($(cat "$synapse_root/$marker") in $synapse_root)"
    return 0
  fi
  if [ -d "$synapse_root" ] && works "$synapse_root"; then
    version "$synapse_root" >"$synapse_root/$marker"
    say "synapse: found a complete one ($(cat "$synapse_root/$marker") in $synapse_root)"
    return 0
  fi

  packages debootstrap || return 1
  if [ -e "$building/.bootstrapped" ]; then
    say "synapse: going on with $building"
  else
    say "synapse: a Debian unstable in $building"
    retry debootstrap bootstrap "$building" "$debs" || return 1
    touch "$building/.bootstrapped"
  fi
  printf '#!/bin/sh\nexit 101\n' >"$building/usr/sbin/policy-rc.d"
  chmod 755 "$building/usr/sbin/policy-rc.d"
  cp -L /etc/resolv.conf "$building/etc/resolv.conf"
  cp -L /etc/hosts "$building/etc/hosts"
  inside "$building" debconf-set-selections <<-SELECTIONS
	matrix-synapse matrix-synapse/server-name string localhost
	matrix-synapse matrix-synapse/report-stats boolean false
	SELECTIONS

  say "synapse: the package and what it needs"
  if ! retry "installing matrix-synapse" add_synapse "$building"; then
    # Perhaps the tree is to blame: the next run makes a new one, from the packages that are here by then.
    rm -f "$building/.bootstrapped"
    return 1
  fi
  inside "$building" apt-get clean
  if ! works "$building"; then
    say "synapse: the installed package does not start:" >&2
    inside "$building" python3 -m synapse.app.homeserver --help >&2 || true
    remove_tree "$building"
    return 1
  fi
  version "$building" >"$building/$marker"
  remove_tree "$synapse_root" || return 1
  mv "$building" "$synapse_root" || return 1
  rm -rf "$debs"
  say "synapse: installed ($(cat "$synapse_root/$marker") in $synapse_root)"
}

# --- Chromium ----------------------------------------------------------------------------------------------------------

# The packages that this system lacks for it, and those that must be in the folder whether or not the system has them.
download_chromium() {
  apt-get install -q -y --no-install-recommends --download-only --reinstall $stale_lists -o DPkg::Lock::Timeout=60 \
    -o Dir::Cache::archives="$1" chromium chromium-common fonts-dejavu-core
}

chromium_version() {
  local libraries
  libraries=$(find "$1/usr/lib" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
  LD_LIBRARY_PATH=$libraries "$1/usr/lib/chromium/chromium" --version
}

install_chromium() {
  local building=$chromium_root.building deb
  mkdir -p "$(dirname "$chromium_root")"
  exec 8>"$chromium_root.lock"
  flock 8
  if [ -e "$chromium_root/$marker" ]; then
    say "chromium: installed ($(cat "$chromium_root/$marker") in $chromium_root)"
    return 0
  fi
  say "chromium: unpacking it into $chromium_root"
  update_lists
  rm -rf --one-file-system -- "$building"
  mkdir -p "$building/debs/partial"
  retry "downloading chromium" download_chromium "$building/debs" || return 1
  for deb in "$building"/debs/*.deb; do
    dpkg -x "$deb" "$building" || return 1
  done
  rm -rf "$building/debs"
  if ! chromium_version "$building" >"$building.version"; then
    say "chromium: what was unpacked does not start" >&2
    return 1
  fi
  mv "$building.version" "$building/$marker"
  rm -rf --one-file-system -- "$chromium_root"
  mv "$building" "$chromium_root" || return 1
  say "chromium: installed ($(cat "$chromium_root/$marker") in $chromium_root)"
}

# --- nginx -------------------------------------------------------------------------------------------------------------

# Only what the program itself needs, and this system lacks, comes with it.
download_nginx() {
  apt-get install -q -y --no-install-recommends --download-only --reinstall $stale_lists -o DPkg::Lock::Timeout=60 \
    -o Dir::Cache::archives="$1" nginx
}

nginx_version() {
  local libraries
  libraries=$(find "$1" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
  LD_LIBRARY_PATH=$libraries "$1/usr/sbin/nginx" -v 2>&1
}

install_nginx() {
  local building=$nginx_root.building deb
  if command -v nginx >/dev/null; then
    say "nginx: installed ($(nginx -v 2>&1))"
    return 0
  fi
  mkdir -p "$(dirname "$nginx_root")"
  exec 7>"$nginx_root.lock"
  flock 7
  if [ -e "$nginx_root/$marker" ]; then
    say "nginx: installed ($(cat "$nginx_root/$marker") in $nginx_root)"
    return 0
  fi
  say "nginx: unpacking it into $nginx_root"
  update_lists
  rm -rf --one-file-system -- "$building"
  mkdir -p "$building/debs/partial"
  retry "downloading nginx" download_nginx "$building/debs" || return 1
  for deb in "$building"/debs/*.deb; do
    dpkg -x "$deb" "$building" || return 1
  done
  rm -rf "$building/debs"
  if ! nginx_version "$building" >"$building.version"; then
    say "nginx: what was unpacked does not start: $(cat "$building.version")" >&2
    return 1
  fi
  mv "$building.version" "$building/$marker"
  rm -rf --one-file-system -- "$nginx_root"
  mv "$building" "$nginx_root" || return 1
  say "nginx: installed ($(cat "$nginx_root/$marker") in $nginx_root)"
}

# --- What is asked for -------------------------------------------------------------------------------------------------

usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0"; }

main() {
  local want=() arg
  for arg in "$@"; do
    case $arg in
    all) want+=(irc postgres chromium nginx synapse) ;;
    irc | postgres | chromium | nginx | synapse) want+=("$arg") ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
  done
  [ "${#want[@]}" -gt 0 ] || want=(irc postgres chromium nginx synapse)

  if [ "$(id -u)" -ne 0 ]; then
    say "must run as root: it installs Debian packages, and Synapse into a changed root. Try: sudo $0 ${want[*]}" >&2
    exit 3
  fi
  if ! command -v apt-get >/dev/null; then
    say "needs apt-get: only Debian and its relatives are supported. Install inspircd, ngircd and PostgreSQL by hand," >&2
    say "and put a tree with Synapse at $synapse_root" >&2
    exit 3
  fi

  local failed=() one
  for one in "${want[@]}"; do
    case $one in
    irc) packages inspircd ngircd || failed+=(irc) ;;
    chromium) install_chromium || failed+=(chromium) ;;
    nginx) install_nginx || failed+=(nginx) ;;
    postgres) install_postgres || failed+=(postgres) ;;
    synapse) install_synapse || failed+=(synapse) ;;
    esac
  done
  [ "${#failed[@]}" -gt 0 ] || exit 0
  say "FAILED: ${failed[*]}" >&2
  [ "${failed[*]}" = synapse ] && exit 4
  exit 1
}

main "$@"
