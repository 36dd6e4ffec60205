// Before anything is drawn: the scheme that was chosen on this machine, if any. What is not chosen is the system's.
{
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
