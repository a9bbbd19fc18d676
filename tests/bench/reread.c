// usage: reread LIST N: does N times what LIST says, and prints the seconds of CPU time that this took.
// A line is KIND, folder, name, with tabs between: F: a file is read to its end; D: a folder is opened, for files in it; L: a folder is listed, and the
// links in it are read when it is one of open files. An empty folder: the name is a whole path.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KEPT = 32, BUFFER = 65536 };
struct line { char kind; char *folder, *name; };
static struct { char path[4096]; int fd; } kept[KEPT];
static unsigned next;
static char buffer[BUFFER];

static int folder_of(const char *path) {
  for (unsigned i = 0; i < KEPT; i++)
    if (kept[i].fd > 0 && !strcmp(kept[i].path, path)) return kept[i].fd;
  return AT_FDCWD;
}

static void keep(const struct line *line, int fd) {
  if (kept[next].fd > 0) close(kept[next].fd);
  kept[next].fd = fd;
  snprintf(kept[next].path, sizeof kept[next].path, "%s%s%s", line->folder, *line->folder ? "/" : "", line->name);
  next = (next + 1) % KEPT;
}

static void list(int fd, int has_links) {
  char link[64];
  for (long length; (length = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0;)
    for (long at = 0; has_links && at < length;) {
      char *entry = buffer + at;
      if (readlinkat(fd, entry + 19, link, 16) < 0) link[0] = 0;
      at += *(unsigned short *)(entry + 16);
    }
}

static void act(const struct line *line) {
  int at = *line->folder ? folder_of(line->folder) : AT_FDCWD;
  char path[8192];
  snprintf(path, sizeof path, "%s", line->name);
  if (*line->folder && at == AT_FDCWD) snprintf(path, sizeof path, "%s/%s", line->folder, line->name);
  int fd = openat(at, path, O_RDONLY | O_CLOEXEC | (line->kind == 'F' ? 0 : O_DIRECTORY));
  if (fd < 0) return;
  if (line->kind == 'F')
    while (read(fd, buffer, sizeof buffer) > 0) {}
  size_t length = strlen(line->name);
  if (line->kind == 'L') list(fd, length > 3 && !strcmp(line->name + length - 3, "/fd"));
  if (line->kind == 'F') close(fd); else keep(line, fd);
}

int main(int count, char **words) {
  if (count != 3) return 2;
  FILE *file = fopen(words[1], "r");
  struct line *lines = NULL;
  size_t number = 0, size = 0;
  char *text = NULL;
  while (file && getline(&text, &size, file) > 0) {
    char *folder = strchr(text, '\t'), *name = folder ? strchr(folder + 1, '\t') : NULL;
    if (!name) return 2;
    *folder = *name = 0;
    name[1 + strcspn(name + 1, "\n")] = 0;
    lines = realloc(lines, (number + 1) * sizeof *lines);
    lines[number++] = (struct line){text[0], strdup(folder + 1), strdup(name + 1)};
  }
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  for (int i = 0; i < atoi(words[2]); i++)
    for (size_t j = 0; j < number; j++) act(&lines[j]);
  getrusage(RUSAGE_SELF, &after);
  double user = after.ru_utime.tv_sec - before.ru_utime.tv_sec + (after.ru_utime.tv_usec - before.ru_utime.tv_usec) / 1e6;
  double system = after.ru_stime.tv_sec - before.ru_stime.tv_sec + (after.ru_stime.tv_usec - before.ru_stime.tv_usec) / 1e6;
  printf("%f\n", user + system);
  return 0;
}
