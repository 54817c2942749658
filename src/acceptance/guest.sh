# Judges a booted image's checks from inside and writes the answer to its serial console, again and again until the
# instance is ended. POSIX sh; needs coreutils and gzip. script.rs sets before this: nonce, magic, deadline (seconds of
# uptime), largest (bytes of an answer), order (the checks' numbers), consoles (empty: the machine's own); and after
# this a function check_N for each check.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
HOME=/root
export PATH LC_ALL HOME

# What a check's own process ends with. Others are the shell's and mean that the check itself broke.
passed=0
failed=10
not_judged=11

now() {
	read -r up _ </proc/uptime
	echo "${up%%.*}"
}

left() {
	echo $((deadline - $(now)))
}

fail() {
	printf '%s\n' "$1"
	exit "$failed"
}

# package NAME WANTED(yes|no) RELATION VERSION DEMAND: the relation as dpkg has it, and both as the recipe has them
package() {
	# A system of rpm's may have dpkg as a tool; its list is empty then.
	if [ -s /var/lib/dpkg/status ] && command -v dpkg-query >/dev/null; then
		of=dpkg
	elif command -v rpm >/dev/null; then
		of=rpm
	else
		echo "the image has neither dpkg's list of packages nor rpm's"
		exit "$not_judged"
	fi
	have=$("${of}_versions" "$1")
	if [ "$2" = no ]; then
		[ -z "$have" ] || fail "is installed, version $have"
		return
	fi
	[ -n "$have" ] || fail 'is not installed'
	[ -n "$3" ] || return 0
	# Of a kernel there are several: one that is as it should be is enough.
	for version in $have; do
		"${of}_is" "$version" "$3" "$4" && return
	done
	fail "has version $have, not $5"
}

dpkg_versions() {
	dpkg-query -W -f='${db:Status-Status} ${Version}\n' -- "$1" 2>/dev/null | sed -n 's/^installed //p'
}

dpkg_is() {
	dpkg --compare-versions "$1" "$2" "$3"
}

rpm_versions() {
	rpm -q --qf '%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\n' -- "$1" 2>/dev/null |
		while read -r name version; do
			# rpm takes `name-version` for a name too.
			[ "$name" != "$1" ] || echo "$version"
		done
}

# Epoch, version and release by themselves: rpm 4.16 and older order only such. Releases count where both have one.
rpm_is() {
	rpm_split "$1"
	e=$epoch v=$version r=$release
	rpm_split "$3"
	order=$(rpm_order "$e" "$epoch")
	[ "$order" != 0 ] || order=$(rpm_order "$v" "$version")
	[ "$order" != 0 ] || [ -z "$r" ] || [ -z "$release" ] || order=$(rpm_order "$r" "$release")
	[ "$order" "-$2" 0 ]
}

rpm_split() {
	epoch=0 version=$1 release=
	case $version in *:*) epoch=${version%%:*} version=${version#*:} ;; esac
	case $version in *-*) release=${version##*-} version=${version%-*} ;; esac
}

rpm_order() {
	rpm --eval "%{lua:print(rpm.vercmp('$1', '$2'))}"
}

# file PATH WANTED(yes|no) MODE USER GROUP TEXT
file() {
	if [ "$2" = no ]; then
		if [ -e "$1" ] || [ -L "$1" ]; then fail 'is there'; fi
		return
	fi
	[ -e "$1" ] || fail 'is not there'
	if [ -n "$3" ]; then
		have=$(stat -L -c %a -- "$1")
		[ "$have" = "$3" ] || fail "has mode $have, not $3"
	fi
	if [ -n "$4" ]; then
		name=$(stat -L -c %U -- "$1") number=$(stat -L -c %u -- "$1")
		[ "$4" = "$name" ] || [ "$4" = "$number" ] || fail "is owned by $name, not $4"
	fi
	if [ -n "$5" ]; then
		name=$(stat -L -c %G -- "$1") number=$(stat -L -c %g -- "$1")
		[ "$5" = "$name" ] || [ "$5" = "$number" ] || fail "is of group $name, not $5"
	fi
	if [ -n "$6" ]; then
		[ -f "$1" ] || fail 'is not a regular file'
		case $(cat -- "$1" 2>/dev/null) in
		*"$6"*) ;;
		*) fail 'does not contain the text' ;;
		esac
	fi
}

starting() {
	case $(systemctl is-system-running 2>/dev/null) in
	initializing | starting) return 0 ;;
	*) return 1 ;;
	esac
}

# service NAME ENABLED(yes|no|) RUNNING(yes|no|)
service() {
	command -v systemctl >/dev/null || { echo 'the image has no systemd'; exit "$not_judged"; }
	# An alias is as enabled as the unit that it names.
	unit=$(systemctl show -p Id --value -- "$1" 2>/dev/null)
	unit=${unit:-$1}
	if [ -n "$2" ]; then
		state=$(systemctl is-enabled -- "$unit" 2>/dev/null)
		is=no
		case $state in
		enabled | enabled-runtime | alias | generated) is=yes ;;
		static | indirect)
			[ -z "$(systemctl show -p WantedBy -p RequiredBy --value -- "$unit" | tr -d '\n')" ] || is=yes
			;;
		esac
		[ "$is" = "$2" ] || fail "systemctl is-enabled says: ${state:-not found}"
	fi
	[ -n "$3" ] || return 0
	idle=0
	before=none
	while :; do
		state=$(systemctl show -p ActiveState --value -- "$unit" 2>/dev/null)
		run=$(systemctl show -p InvocationID --value -- "$unit" 2>/dev/null)
		case $state in
		active | reloading)
			[ "$3" = yes ] || fail "is $state"
			# Twice in one run of it: a service that starts over and over is active now and then, too.
			[ "$run" != "$before" ] || return 0
			before=$run
			;;
		*)
			before=none
			case $state in
			inactive | failed | '') starting || idle=$((idle + 1)) ;;
			*) idle=0 ;;
			esac
			if [ "$3" = no ]; then
				[ "$idle" -eq 0 ] || return 0
			elif [ "$idle" -ge 10 ]; then
				fail "is ${state:-not found}: $(systemctl show -p Result --value -- "$unit" 2>/dev/null)"
			fi
			;;
		esac
		[ "$(left)" -gt 0 ] || fail "is $state, and the time is over"
		sleep 1
	done
}

# listening PORT: four hexadecimal digits, as the kernel writes them; 0A is its word for listening.
listening() {
	for table in /proc/net/tcp /proc/net/tcp6; do
		[ -r "$table" ] || continue
		while read -r _ local _ state _; do
			case "$local $state" in
			*:"$1 0A") return 0 ;;
			esac
		done <"$table"
	done
	return 1
}

# port PORT
port() {
	until listening "$1"; do
		[ "$(left)" -gt 0 ] || fail 'nothing listens'
		sleep 1
	done
}

# Without white space at its ends.
trimmed() {
	text=$1
	while :; do
		case $text in
		[[:space:]]*) text=${text#?} ;;
		*[[:space:]]) text=${text%?} ;;
		*) break ;;
		esac
	done
	printf '%s' "$text"
}

# command_is SCRIPT EXIT STDOUT(yes|) TEXT CONTAINS(yes|) TEXT
command_is() {
	out=$work/out err=$work/err
	# At most 64 KiB of output are looked at; a command that writes more is ended by the closed pipe.
	{ { sh -c "$1" 2>&3; echo $? >"$work/code"; } | head -c 65536 >"$out"; } 3>&1 | tail -c 1500 >"$err"
	code=$(cat "$work/code")
	said=$(tail -c 1500 "$out"; cat "$err")
	[ "$code" = "$2" ] || fail "exit code $code, not $2; $said"
	have=$(cat "$out")
	if [ -n "$3" ]; then
		[ "$(trimmed "$have")" = "$4" ] || fail "standard output is not \`$4\` but: $said"
	fi
	if [ -n "$5" ]; then
		case $have in
		*"$6"*) ;;
		*) fail "standard output does not contain \`$6\`: $said" ;;
		esac
	fi
}

# Runs check $1 in a process of its own, so that one that hangs ends.
judge() {
	began=$(now)
	limit=$(left)
	[ "$limit" -lt 1 ] && limit=1
	timeout -k 5 "$((limit + 5))" /bin/sh "$0" check "$1" </dev/null >"$work/$1.all" 2>&1
	code=$?
	head -c 2048 "$work/$1.all" >"$work/$1.message"
	rm -f "$work/$1.all"
	case $code in
	"$passed") verdict=p ;;
	"$failed") verdict=f ;;
	"$not_judged") verdict=n ;;
	124 | 137) verdict=f; echo 'did not end in time' >"$work/$1.message" ;;
	*) verdict=f; echo "the check itself ended with code $code" >>"$work/$1.message" ;;
	esac
	echo "$verdict $(($(now) - began))" >"$work/$1.verdict"
}

# The answer with at most $1 bytes of each message.
json() {
	comma=
	printf '{"checks":['
	for number in $order; do
		read -r verdict seconds <"$work/$number.verdict"
		message=
		[ "$verdict" = p ] || message=$(head -c "$1" "$work/$number.message" | base64 | tr -d '\n')
		printf '%s{"i":%s,"s":"%s","t":%s,"m":"%s"}' "$comma" "$number" "$verdict" "$seconds" "$message"
		comma=,
	done
	printf ']}'
}

frame() {
	for most in 2048 512 128 0; do
		json "$most" | gzip -9 -n | base64 | tr -d '\n' >"$work/data"
		length=$(wc -c <"$work/data")
		[ "$length" -gt "$largest" ] || break
	done
	sum=$(sha256sum <"$work/data")
	printf '\n%s %s %s %s ' "$magic" "$nonce" "$((length))" "${sum%% *}"
	cat "$work/data"
	printf '@\n'
}

# Writes file $1 to every serial console. A getty that comes or goes may break one write; the next one stands.
say() {
	for console in $consoles; do
		cat "$1" 2>/dev/null >>"$console"
	done 2>/dev/null
}

run() {
	work=$(mktemp -d /run/bakehouse.XXXXXX 2>/dev/null || mktemp -d) || exit 1
	export work
	if [ -z "$consoles" ]; then
		for name in $(cat /sys/class/tty/console/active 2>/dev/null); do
			case $name in
			tty[0-9]*) ;;
			*) consoles="$consoles /dev/$name" ;;
			esac
		done
		[ -n "$consoles" ] || consoles='/dev/ttyS0 /dev/console'
		# The kernel writes between the bytes of a line: only its emergencies from here on.
		dmesg -n 1 2>/dev/null
	fi
	printf '\n%s %s started@\n' "$magic" "$nonce" >"$work/line"
	say "$work/line"
	# Services are still coming up: the checks begin when systemd is done, at the latest after half of the time.
	half=$(($(left) / 2))
	while starting && [ "$half" -gt 0 ]; do
		sleep 1
		half=$((half - 1))
	done
	for number in $order; do
		judge "$number"
	done
	frame >"$work/line"
	# Ten minutes are longer than anybody waits for an answer that is there.
	times=200
	while [ "$times" -gt 0 ]; do
		say "$work/line"
		sleep 3
		times=$((times - 1))
	done
}

main() {
	case ${1:-} in
	check)
		"check_$2"
		;;
	run)
		run
		;;
	*)
		[ -z "$life" ] || setsid /bin/sh -c "sleep $life; poweroff -f" </dev/null >/dev/null 2>&1 &
		# cloud-init waits for this script, and systemd for cloud-init: the checks must not hold up the boot.
		if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null; then
			systemd-run --quiet --no-block --collect --unit=bakehouse-checks /bin/sh "$0" run && return
		fi
		setsid /bin/sh "$0" run </dev/null >/dev/null 2>&1 &
		;;
	esac
}
