#!/bin/sh
# A pull in a container that can write to the archive and to nothing else. The directory has to belong
# to the user: chown 10001:10001 /srv/redis-backups
exec docker run --rm --read-only --user 10001:10001 --cap-drop ALL \
    --security-opt no-new-privileges --env-file /etc/archiver/vendor.env \
    --volume /srv/redis-backups:/archive \
    registry.example.com/archiver:0.1 \
    pull --instance r-bp1zxszhcgatnx --instance r-bp1yyyyyyyyyyyyy --region cn-hangzhou \
    --to /archive --require-archive --lock-wait 30m --no-progress "$@"
