/* The workload of the benchmarks: writes the monotonic clock as its first act, then waits to be told to leave. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static void leave(int number) {
  (void)number;
  _exit(0);
}

int main(void) {
  struct timespec now;
  char line[32];
  clock_gettime(CLOCK_MONOTONIC, &now);
  int length = snprintf(line, sizeof line, "%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
  int file = open("/stamp/at", O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (file < 0 || write(file, line, length) != length) return 1;
  close(file);
  signal(SIGTERM, leave);
  for (;;) pause();
}
