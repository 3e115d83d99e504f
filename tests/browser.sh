#!/usr/bin/env bash
# Looks at HTML reports in a real browser: tests/browser.sh OUT CASE.json… (what `--save` wrote; `tunproof` in PATH).
#
# Of each case a page, and of that pictures as a phone and a desktop show it, light and dark, and a PDF with its first
# pages as pictures, all in the folder OUT, to be looked at. It fails where anything but a hexdump is wider than the
# window, at 320 to 1280 pixels. It needs Chromium and pdftoppm: apt-get install chromium poppler-utils
set -euo pipefail
out=$(realpath -m "$1")
shift
mkdir -p "$out"
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
browse() { chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" "$@" 2>/dev/null; }
wide=0
for case in "$@"; do
    name=$(basename "$case" .json)
    page=$out/$name.html
    # Its status is the verdict's.
    tunproof judge "$case" --format html --output "$page" || [ $? != 2 ]

    # The page runs no script. So one beside it tells how wide its parts are, all opened, in frames of these widths.
    {
        echo '<!DOCTYPE html><meta charset="utf-8"><textarea id="page" hidden>'
        sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' "$page"
        cat <<'JS'
</textarea>
<script>
const page = document.getElementById("page").value.replace(/<meta http-equiv[^>]*>/, "").replaceAll("<details", "<details open");
Promise.all([320, 390, 768, 1280].map(width => new Promise(done => {
    const frame = document.createElement("iframe");
    frame.width = width;
    frame.srcdoc = page;
    frame.onload = () => {
        const parts = [...frame.contentDocument.querySelectorAll("main *")].filter(part => !part.closest("pre.hex, svg"));
        const room = frame.contentDocument.documentElement.clientWidth;
        const wide = parts.filter(part => part.getBoundingClientRect().right > room + 1).slice(0, 3);
        done(`${parts.length} parts at ${width}: ${wide.map(part => `${part.tagName} ${part.textContent.slice(0, 40)} is wider; `).join("")}`);
    };
    document.body.append(frame);
}))).then(said => document.title = said.join("| "));
</script>
JS
    } > "$profile/measure.html"
    said=$(browse --virtual-time-budget=20000 --dump-dom "file://$profile/measure.html" | tr '\n' ' ' | grep -ao '<title>[^<]*' | head -1)
    echo "$name: ${said#<title>}"
    if [[ $said != *parts* || $said == *wider* ]]; then wide=1; fi

    for look in phone,390,light,1 phone,390,dark,0 desktop,1280,light,1 desktop,1280,dark,0; do
        IFS=, read -r device width scheme number <<< "$look"
        browse --blink-settings=preferredColorScheme=$number --window-size=$width,3000 \
            --screenshot="$out/$name-$device-$scheme.png" "file://$page"
    done
    browse --no-pdf-header-footer --print-to-pdf="$out/$name.pdf" "file://$page"
    pdftoppm -r 60 -l 6 -png "$out/$name.pdf" "$out/$name-page"
done
ls "$out"
exit $wide
