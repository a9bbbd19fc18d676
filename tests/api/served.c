/* Two ports to forward to. 9001: what comes goes back. 9002: when the client has ended its half, how many bytes came. One process for each connection. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static int listening(int port) {
    struct sockaddr_in6 at = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    int s = socket(AF_INET6, SOCK_STREAM, 0), on = 1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    return bind(s, (struct sockaddr *)&at, sizeof at) || listen(s, 512) ? -1 : s;
}

static void serve(int s, int echoes) {
    static char piece[65536];
    unsigned long all = 0;
    for (long n; (n = read(s, piece, sizeof piece)) > 0; all += n)
        for (long done = 0, m; echoes && done < n; done += m)
            if ((m = write(s, piece + done, n - done)) <= 0) return;
    if (!echoes) dprintf(s, "%lu\n", all);
}

int main(void) {
    int echo = listening(9001), count = listening(9002);
    if (echo < 0 || count < 0) return 1;
    signal(SIGCHLD, SIG_IGN);
    int echoes = fork() > 0, at = echoes ? echo : count;
    for (;;) {
        int s = accept(at, 0, 0);
        if (s >= 0 && fork() == 0) { serve(s, echoes); return 0; }
        close(s);
    }
}
