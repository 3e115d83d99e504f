#!/usr/bin/env bash
# Unpacks the distribution's newest kernel under target/guest; installs nothing. Runs once a kernel.
set -euo pipefail
cd "$(dirname "$0")/../.."
kernel=${1:-linux-image-amd64} # Ubuntu: linux-image-generic
folder=target/guest
mkdir -p "$folder"

depends() { apt-cache depends "$1" | awk -v what="$2" '$1 == "Depends:" && $2 ~ what { print $2; exit }'; }

image=$(depends "$kernel" '^linux-image-')
[ -n "$image" ] || { echo "no package that $kernel depends on: run apt-get update" >&2; exit 1; }
if [ -e "$folder/$image" ]; then exit 0; fi

# Ubuntu keeps the modules in packages of their own; the extra ones hang on the metapackage's image.
modules=$(depends "$image" '^linux-modules-')
rm -rf "$folder/root" "$folder/packages" "$folder"/linux-image-*
mkdir -p "$folder/packages"
(cd "$folder/packages" && apt-get download "$image" ${modules:+"$modules" "${modules/modules/modules-extra}"})
for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder/root"; done
rm -r "$folder/packages"
version=$(ls "$folder/root/lib/modules")
depmod -b "$folder/root" "$version"
echo "$version" >"$folder/$image"
