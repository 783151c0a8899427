# Keeps one cluster: starts its server when told to, and when the test process is gone, which
# shows as the end of standard input whatever ended it, stops the server and removes the directory.
# Arguments: the cluster's directory, then the server's command.
root=$1
shift
started=

while read -r _; do
    started=yes
    # The inner shell writes down the id that the server will have, then becomes the server.
    # The outer one waits for it, so that the end of the server is a file, never a zombie.
    (
        sh -c 'echo $$ >"$0/pid"; exec "$@"' "$root" "$@" </dev/null >>"$root/log" 2>&1
        echo $? >"$root/exit"
    ) &
done

# Asked again and again, because a server that is only just starting does not listen yet.
# CONT comes first because a stopped process hears nothing else.
rounds=0
while [ -n "$started" ] && [ ! -s "$root/exit" ]; do
    if [ -s "$root/pid" ]; then
        server=$(cat "$root/pid")
        kill -s CONT "$server"
        if [ "$rounds" -lt 100 ]; then kill -s QUIT "$server"; else kill -s KILL "$server"; fi
    fi
    rounds=$((rounds + 1))
    sleep 0.1
done

cd /
rm -rf "$root"
