"""Run the dialog: handle events, call the service, update messages when the store changes."""
