#!/bin/busybox sh
# First process of the guest: this machine's filesystem over 9p, read-only below a tmpfs, then the driver.
# The kernel's command line gives GUEST (this folder), KERNEL (its modules) and what run.sh wants, as environment.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

give_up() { echo "GUEST FAILED: $*"; poweroff -f; sleep 60; }

for module in $(cat /modules/order); do insmod /modules/"$module" || give_up "insmod $module"; done
mkdir -p /below /above /root
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose below /below || give_up "root over 9p"
mount -t tmpfs above /above
mkdir /above/upper /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work overlay /root || give_up "overlay"
mkdir -p /root/results /root/lib/modules
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 results /root/results || give_up "results over 9p"
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t devtmpfs dev /root/dev
mount -t tmpfs run /root/run
mount --bind "/root$KERNEL/lib/modules" /root/lib/modules || give_up "modules"

# As process 1, so that the kernel too looks for modprobe under the new root.
exec chroot /root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    TUNPROOF="$TUNPROOF" GUEST="$GUEST" UNIT="$UNIT" ONLY="$ONLY" /bin/sh "$GUEST/run.sh" </dev/null
