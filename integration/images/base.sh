#!/usr/bin/env bash
# Makes the image debian:bookworm-slim out of Debian's packages, for a machine that reaches a package mirror but no image registry.
# Does nothing if there is an image of that name. Needs root, docker and debootstrap; the mirror is the one that apt uses.
set -euo pipefail

image=debian:bookworm-slim
suite=bookworm

if docker image inspect "$image" >/dev/null 2>&1; then
    exit 0
fi
if ! command -v debootstrap >/dev/null; then
    echo "base.sh: $image is made with debootstrap: apt-get install debootstrap" >&2
    exit 1
fi
mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' | awk -v suite="$suite" '$1 == suite { print $2; exit }')
if [ -z "$mirror" ]; then
    echo "base.sh: apt knows no mirror for $suite" >&2
    exit 1
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase "$suite" "$root/tree" "$mirror" >"$root/log" 2>&1 || {
    tail -n 20 "$root/log" >&2
    exit 1
}
# What makes the image slim: no package lists, no documents, no translations.
rm -rf "$root/tree"/var/cache/apt/* "$root/tree"/var/lib/apt/lists/* "$root/tree"/usr/share/{doc,man,info,locale}/*
tar --numeric-owner -C "$root/tree" -c . | docker import --change 'CMD ["bash"]' - "$image" >/dev/null
