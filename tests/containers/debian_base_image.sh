#!/bin/sh
# Write a root filesystem of Debian with Python to the file $1, as root: what the official Python image is, near enough.
# Debian's Python is older than that image's. pip's configuration and the certificates are this machine's: both may be
# needed to reach an index from here.
set -eu
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3-venv,ca-certificates bookworm "$root" >&2
chroot "$root" python3 -m venv /usr/local  # python and pip lie there in the official image too
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/doc "$root"/usr/share/locale "$root"/usr/share/man
for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -f "$file" ] || cp "$file" "$root$file"
done
tar -C "$root" -cf "$1" .
